"""What documents say can be typed, and the files and modules that they name."""

import argparse
import pathlib
import re
import shlex

import gin
import pytest

from prompt_tuning.cluster import program
from prompt_tuning.core import embedded
from prompt_tuning.data import corpus
from prompt_tuning.launch import main

pytestmark = pytest.mark.usefixtures("own_tasks")

ROOT = pathlib.Path(__file__).parents[2]
DOCUMENTS = sorted(
  [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "experiments").rglob("*.md"),
  ]
)
# Those that are configured by gin.
GIN = (
  *("train", "sweep", "compare", "pretrain", "eval", "infer", "score"),
  "plan",
)
# A package, what must never be made, what lies beside the checkout, and what a
# reader writes.
ABSENT = {
  *("prompt_tuning.gin", "gin/__init__.py", "numbers.md", "style.md"),
  "my_reviews.gin",
}


def in_document(path):
  return pytest.param(path, id=path.relative_to(ROOT).as_posix())


def command_lines():
  """Every line of a shell block that calls this project."""
  for path in DOCUMENTS:
    for block in re.findall(
      r"^```sh\n(.*?)^```", path.read_text(), re.M | re.S
    ):
      for line in re.split(r"\n|&&", block.replace("\\\n", " ")):
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"\w+=.*", words[0]):
          words.pop(0)  # a variable
        if words:
          yield path, words


LINES = list(command_lines())


def write_own_data(folder):
  """Write the files that docs/own_data.md shows: its gin file and its rows."""
  text = (ROOT / "docs" / "own_data.md").read_text()
  (gin_file,) = re.findall(r"^```gin\n(.*?)^```", text, re.M | re.S)
  (row,) = re.findall(r"^```json\n(.*?)^```", text, re.M | re.S)
  (folder / "my_reviews.gin").write_text(gin_file)
  for name in ("train", "dev"):
    (folder / f"{name}.jsonl").write_text(row)


class Parsed(BaseException):
  """The flags were understood; nothing shall be done."""


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch):
  monkeypatch.chdir(ROOT)
  yield
  gin.clear_config()


@pytest.mark.parametrize(
  "words",
  [
    pytest.param(words[1:], id=f"{path.name}:{number}:{words[1]}")
    for number, (path, words) in enumerate(LINES)
    if words[0] == "prompt-tuning"
  ],
)
def test_commands(words, monkeypatch, capsys, tmp_path):
  """Flags parse, gin files and macros are known; no data is needed."""
  command, *argv = words
  if "--gin_file=my_reviews.gin" in argv:
    write_own_data(tmp_path)
    monkeypatch.chdir(tmp_path)
  # A user's text, which goes into the name of its rows.
  monkeypatch.setattr(corpus, "_sha256", str)
  if command == "launch":
    assert "--dry_run" in argv
    assert main.main(words) == 0, capsys.readouterr().err
    command = program.SWEEP if "--program=sweep" in argv else "train"
    _, argv = program.split(argv[1:])
  if command in GIN:
    # `pretrain` reads its vocabulary, which a line before would have made.
    vocabulary = f"--gin.VOCABULARY_FILE='{embedded.DEFAULT}'"
    status = main.main([command, *argv, vocabulary, "--dry_run"])
    assert status == 0, capsys.readouterr().err
    return

  def parse(parser, *args):
    real(parser, *args)
    raise Parsed

  real = argparse.ArgumentParser.parse_args
  monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
  with pytest.raises(Parsed):
    main.main([command, *argv])


def test_every_command_is_documented():
  text = (ROOT / "docs" / "train.md").read_text()
  in_table = re.findall(r"^\| (`prompt-tuning .*?) \|", text, re.M)
  names = re.findall(r"`(?:prompt-tuning )?(\w+)", "".join(in_table))
  assert main.COMMANDS.keys() <= set(names)
  assert {words[1] for _, words in LINES if words[0] == "prompt-tuning"} >= {
    *("train", "pretrain", "plan", "launch", "convert", "data", "vocabulary")
  }


def test_make_targets_and_python_modules_exist():
  targets = re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text(), re.M)
  targets = " ".join(targets).split()
  made, modules = set(), set()
  for path in DOCUMENTS:
    text = path.read_text()
    # In code only: "make" is a word, too.
    made |= set(re.findall(r"(?:^|`|&& )make ([a-z0-9-]+)", text, re.M))
    modules |= set(
      re.findall(r"python -m ((?:benchmarks|experiments)[\w.]+)", text)
    )
  assert {"quickstart", "check", "bench", "bench-short"} <= made <= set(targets)
  assert "experiments.plans.run" in modules
  for module in modules:
    assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module


@pytest.mark.parametrize("path", [in_document(p) for p in DOCUMENTS])
def test_links_and_files_exist(path):
  text = path.read_text()
  for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
    assert (path.parent / link).exists(), link
  tops = ("prompt_tuning", "gin", "tests", "benchmarks", "experiments", "docs")
  known = {
    *(p.relative_to(ROOT).as_posix() for p in ROOT.glob("*")),
    *(
      p.relative_to(ROOT).as_posix()
      for top in tops
      for p in (ROOT / top).rglob("*.*")
    ),
  }
  endings = {
    "/".join(parts[start:])
    for parts in (name.split("/") for name in known)
    for start in range(len(parts))
  }
  code = " ".join(re.findall(r"`([^`\n]+)`", text))
  named = re.findall(r"(?<![\w./{}*<>-])[\w./-]+\.(?:py|md|gin)(?!\w)", code)
  assert sorted(set(named) - endings - ABSENT) == []


def test_the_layout_is_what_is_there():
  """Every module that the layout names, in the folder that it names."""
  text = (ROOT / "docs" / "design.md").read_text()
  (block,) = re.findall(r"```\nprompt_tuning/(.*?)^gin/", text, re.M | re.S)
  folder, seen = "", 0
  for line in block.splitlines():
    if heading := re.match(r"  ([\w./]+)", line):
      folder = heading[1]
    if "(later" in line or folder.endswith(".py"):
      continue
    for name in re.findall(r"(?<![\w/])\w+\.py", line):
      path = ROOT / "prompt_tuning" / folder / name
      assert path.is_file(), path
      seen += 1
  assert seen > 60
  packages = {
    p.parent.name for p in (ROOT / "prompt_tuning").glob("*/__init__.py")
  }
  assert packages <= set(re.findall(r"^  (\w+)/", block, re.M))


def test_contributing_draws_the_contract():
  """The order of packages in CONTRIBUTING.md is import-linter's."""
  contract = (ROOT / "pyproject.toml").read_text()
  (layers,) = re.findall(r"^layers = \[(.*?)^\]", contract, re.M | re.S)
  expected = [
    [name.removeprefix("prompt_tuning.") for name in line.split(" | ")]
    for line in re.findall(r'"(.*?)"', layers)
  ]
  text = (ROOT / "CONTRIBUTING.md").read_text().split("import-linter", 1)[1]
  drawn = text.split("```\n")[1].splitlines()
  found = [re.split(r" {2,}", line)[0].split(", ") for line in drawn]
  assert found == expected
  design = (ROOT / "docs" / "design.md").read_text()
  (order,) = re.findall(r"`(launch \| api .*?)`", design, re.S)
  steps = " ".join(order.split()).split(" -> ")
  assert [step.split(" | ") for step in steps] == expected
