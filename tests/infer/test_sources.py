"""Inputs from files: every line once, errors that name the line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.data import custom, spec
from prompt_tuning.infer.sources import read


def test_text_lines(tmp_path):
  path = tmp_path / "in.txt"
  # A line separator of Unicode is part of a text; a blank line is an input.
  path.write_bytes("one\ntwo\u2028still\r\n\nlast".encode())
  texts = [example["inputs_pretokenized"] for example in read(path)]
  assert texts == ["one", "two\u2028still", "", "last"]


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_json_lines_hold_any_text(tmp_path_factory, texts):
  path = tmp_path_factory.mktemp("json") / "in.jsonl"
  records = [
    {"inputs": text, "targets": text[:3], "prompt": "p"} for text in texts
  ]
  path.write_text("\n\n".join(map(json.dumps, records)), encoding="utf-8")
  assert list(read(path)) == [
    {
      "inputs_pretokenized": text,
      "targets_pretokenized": text[:3],
      "prompt": "p",
    }
    for text in texts
  ]


def test_names_of_tasks_are_understood_too(tmp_path):
  path = tmp_path / "in.jsonl"
  path.write_text('{"inputs_pretokenized": "a", "idx": [1, 2]}\n')
  assert list(read(path)) == [{"inputs_pretokenized": "a", "idx": [1, 2]}]


@pytest.mark.parametrize(
  ("line", "message"),
  [
    ("{", ":2: not JSON"),
    ("[1]", ":2: expected a JSON object with named columns, got list"),
    (
      '{"targets": "a"}',
      ":2: no column 'inputs', which inference needs. .* has: targets",
    ),
    ('{"inputs": "a", "score": NaN}', ":2: NaN and infinite numbers cannot"),
    ('{"inputs": 3}', ":2: `inputs` must be a text, got 3"),
    ('{"inputs": "a", "targets": 1}', ":2: `targets` must be a text"),
  ],
)
def test_lines_that_are_no_examples(line, message, tmp_path):
  path = tmp_path / "in.jsonl"
  path.write_text('{"inputs": "fine"}\n' + line)
  lines = read(path)
  assert next(lines) == {"inputs_pretokenized": "fine"}
  with pytest.raises(ValueError, match=message):
    next(lines)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"one\n\xe9t\xe9\n", ":2: not UTF-8: byte 0xe9"),
    ("text".encode("utf-16"), ":1: UTF-16; expected UTF-8"),
    (b"PK\x03\x04\x00", ":1: a zip or spreadsheet file; expected UTF-8 text"),
    (b"\x1f\x8b\x08", ":1: a gzip file; .* Unpack it"),
    (b"text\n\0", ":2: the line has a zero byte, so the file"),
    (b"", ": the file has no lines"),
  ],
)
def test_not_text(tmp_path, content, message):
  path = tmp_path / "in.txt"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message):
    list(read(path))


ROWS = [{"inputs": "a, b", "targets": "x"}, {"inputs": "c", "targets": "y"}]
FILES = {
  "in.jsonl": "\n".join(map(json.dumps, ROWS)),
  "in.JSONL": "\r\n".join(map(json.dumps, ROWS)) + "\r\n",
  "list.json": json.dumps(ROWS, indent=2),
  "lines.json": "\n".join(map(json.dumps, ROWS)),
  "in.csv": 'inputs,targets\n"a, b",x\nc,y\n',
  "mac.CSV": 'inputs,targets\r"a, b",x\rc,y\r',
  "in.tsv": "inputs\ttargets\na, b\tx\nc\ty\n",
}


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_is_read_as_in_training(
  tmp_path, name, mark, monkeypatch
):
  """`.json`, `.JSONL` and `.csv` were read as text, each line an input."""
  monkeypatch.setattr(spec, "_specs", {})
  path = tmp_path / name
  path.write_bytes((mark + FILES[name]).encode())
  examples = list(read(path))
  assert examples == [
    {"inputs_pretokenized": row["inputs"], "targets_pretokenized": t}
    for row, t in zip(ROWS, "xy", strict=True)
  ]
  task = custom.declare("t", {"train": str(path)}, "{inputs}", "targets")
  for row, example in zip(custom.rows(task, "train"), examples, strict=True):
    assert row["inputs"] == example["inputs_pretokenized"]
    assert row["targets"] == example["targets_pretokenized"]


def test_a_mark_and_carriage_returns_are_no_part_of_a_text(tmp_path):
  path = tmp_path / "in.txt"
  path.write_bytes("\ufeffone\rtwo\r\nthree".encode())
  texts = [example["inputs_pretokenized"] for example in read(path)]
  assert texts == ["one", "two", "three"]
