"""How often the commands read a user's own data file, and when they refuse it.

A file may have millions of rows: what names the token cache is its hash, which
takes one reading; its rows are read where there is no cache yet.
"""

import collections
import io
import json
import os

import pytest

from prompt_tuning.data import custom, spec
from prompt_tuning.launch import main


@pytest.fixture
def files(tmp_path):
  """A training file of 30 rows and a validation file of 10."""
  for name, count in (("train", 30), ("validation", 10)):
    rows = [
      json.dumps({"text": f"a cat {i}", "label": ("no", "yes")[i % 2]})
      for i in range(count)
    ]
    (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
  return {s: str(tmp_path / f"{s}.jsonl") for s in ("train", "validation")}


@pytest.fixture
def command(tmp_path, train_flags, files, monkeypatch):
  """A function: name of a new run, flags -> status of `train` on `files`."""
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))

  def run(name, *more):
    custom._read_head.cache_clear()  # as in a new process
    flags = train_flags(
      tmp_path / name,
      f"--gin.data.custom_task.name='own_{tmp_path.name}'",
      f"--gin.data.custom_task.files={files}",
      f"--gin.TOKEN_CACHE_DIR='{tmp_path}/tokens'",
      *more,
    )
    return main.main(["train", *flags])

  return run


@pytest.fixture
def openings(files, monkeypatch):
  """Split -> how often its file was opened since this was last cleared."""
  counts = collections.Counter()
  splits = {path: split for split, path in files.items()}

  def counted(real):
    def opener(file, *args, **kwargs):
      if not isinstance(file, int) and os.fspath(file) in splits:
        counts[splits[os.fspath(file)]] += 1
      return real(file, *args, **kwargs)

    return opener

  for module, name in ((io, "open"), (os, "open")):
    monkeypatch.setattr(module, name, counted(getattr(module, name)))
  monkeypatch.setattr("builtins.open", io.open)
  return counts


@pytest.mark.slow
def test_a_file_is_read_once_and_its_rows_where_there_is_no_cache(
  command, openings
):
  assert command("dry", "--dry_run") == 0
  assert openings == {"train": 1, "validation": 1}
  openings.clear()
  assert command("cold") == 0
  assert openings == {"train": 2, "validation": 2}
  openings.clear()
  assert command("warm") == 0
  assert openings == {"train": 1, "validation": 1}


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_bad_row_stops_before_the_first_step(
  split, files, command, tmp_path, capsys
):
  with open(files[split], "a") as file:
    file.write('\n{"text": "a cat", "label": "perhaps"}')
  assert command("dry", "--dry_run") == 0
  assert command("run") == 2
  line = {"train": 31, "validation": 11}[split]
  message = f"{files[split]}:{line}: unknown label 'perhaps' in column 'label'"
  assert message in capsys.readouterr().err
  assert not (tmp_path / "run" / "bundles").exists()


def test_a_bad_first_row_stops_a_dry_run(files, command, capsys):
  with open(files["validation"], "w") as file:
    file.write('{"words": "a cat", "label": "yes"}')
  assert command("dry", "--dry_run") == 2
  assert f"{files['validation']}:1: no column 'text'" in capsys.readouterr().err
