"""README: short, in order, and nothing in it that is not so.

Its Python runs in `make wheel`, its commands in tests/launch/test_documents.py.
"""

import pathlib
import re

from docs.generate import examples

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text("utf-8")


def test_it_is_short():
  lines = TEXT.splitlines()
  assert len(lines) <= 200
  assert [line for line in lines if len(line) > 80] == []


def test_what_a_reader_can_do_comes_first():
  assert re.findall(r"^## (.*)", TEXT, re.M) == [
    *("Two commands", "In Python", "On your own data", "Methods"),
    *("How fast", "Install", "Checkpoints", "Pods", "More"),
  ]


def test_examples_are_of_ten_lines_and_need_no_download(tmp_path):
  blocks = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
  assert [block.count("\n") <= 12 for block in blocks] == [True, True]
  examples.write(ROOT / "README.md", tmp_path)
  program = (tmp_path / "example.py").read_text()
  assert "pt.load_model()" in program
  for name in re.findall(r'"([\w-]+\.jsonl)"', program):
    (keys,) = {
      frozenset(re.findall(r'"(\w+)":', line))
      for line in (tmp_path / name).read_text().splitlines()
    }
    assert keys == {"words", "answer"}
  (row,) = re.findall(r"^```json\n(.*?)^```", TEXT, re.M | re.S)
  assert set(re.findall(r'"(\w+)":', row)) == {"words", "answer"}


def test_the_table_of_methods_is_what_was_measured():
  measured = (ROOT / "experiments/methods/table.md").read_text()
  rows = re.findall(r"^\| .* \| `(.*)` \| ([\d,]+) \| ([\d.]+) \|$", TEXT, re.M)
  assert len(rows) >= 15
  names = {"prompts/": "prompt", "methods/multitask_prompt.gin": "mpt"}
  for file, numbers, score in rows:
    assert (ROOT / "gin" / file).exists()
    name = names.get(file, pathlib.Path(file).stem)
    (row,) = re.findall(rf"^\| {name} \| .*", measured, re.M)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert [cells[1], cells[7]] == [numbers, score], row


def test_extras_exist():
  setup = (ROOT / "setup.py").read_text()
  asked = re.findall(r"pip install '\.\[([\w,]+)\]'", TEXT)
  further = re.findall(r"`(s3|hub|plan|docs|notebooks)`", TEXT)
  assert len(asked) == 2
  for extra in [*",".join(asked).split(","), *further]:
    assert f'\n  "{extra}": [' in setup
