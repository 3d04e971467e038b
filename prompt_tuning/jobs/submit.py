"""Leaderboard files from the answers of `infer` to a test split."""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.core import files
from prompt_tuning.data import spec, submission
from prompt_tuning.data.prepare import sources

# File names as `infer.outputs` writes them.
_NAME = re.compile(
  r"(?P<task>.+)-predict(_with_aux)?\.jsonl-(?P<index>\d{5})-of-(?P<count>\d{5})"
)
_COMPLETED = ".COMPLETED"


def submit(
  folder: str, destination: str, illegal: int | None = None
) -> list[str]:
  """Write the official file of every task with answers in a folder.

  Args:
    folder: INFER_OUTPUT_DIR of `infer`, whose INFER_SPLIT was `test`.
    destination: folder for the files.
    illegal: class id to write for answers that are no legal label; None
      refuses them.

  Returns:
    A line for every file.

  Raises:
    ValueError: there are no answers, a part of a split is missing, a task has
      no such file, the number of rows is not that of the official test split,
      or an answer is not a legal label. Then nothing is written.
  """
  answers = {task: _read(files) for task, files in _by_task(folder).items()}
  official = _official_rows()
  for task, rows in answers.items():
    submission.file_name(task)
    expected = official.get(spec.task(task).source.partition(":")[0])
    if expected not in (None, len(rows)):
      raise ValueError(
        f"{folder} has {len(rows):,} answers to {task}; the official test "
        f"split has {expected:,} rows, and the leaderboard needs all of them. "
        "Run `infer` with INFER_SPLIT = 'test' on the complete data."
      )
  contents = {
    task: submission.lines(
      task,
      [str(row["prediction"]) for row in rows],
      [row["inputs"] for row in rows],
      illegal,
    )
    for task, rows in answers.items()
  }
  return [
    f"{submission.write_lines(task, lines, destination)}: "
    f"{len(answers[task]):,} answers to {task}"
    for task, lines in contents.items()
  ]


def _official_rows() -> dict[str, int]:
  """TFDS name -> rows of its test split, where they are known."""
  return {
    source.name: source.official["test"]
    for source in sources.all_sources()
    if "test" in source.official
  }


def _by_task(folder: str) -> dict[str, list[pathlib.Path]]:
  """Find the complete output files, the parts of a task in their order."""
  root = files.path(folder)
  if not root.is_dir():
    raise ValueError(f"{folder} is not a folder; expected INFER_OUTPUT_DIR.")
  matches: dict[str, dict[int, tuple[int, pathlib.Path]]] = {}
  for path in sorted(root.iterdir()):
    match = _NAME.fullmatch(path.name)
    if match:
      part = (int(match["count"]), path)
      matches.setdefault(match["task"], {})[int(match["index"])] = part
  if not matches:
    raise ValueError(
      f"{folder} has no answers: expected files such as "
      "<task>-predict.jsonl-00000-of-00001, as `infer` writes them."
    )
  return {task: _parts(task, by_index) for task, by_index in matches.items()}


def _parts(
  task: str, by_index: Mapping[int, tuple[int, pathlib.Path]]
) -> list[pathlib.Path]:
  """Insist that all parts of a task are there and complete."""
  counts = {count for count, _ in by_index.values()}
  paths = [path for _, (_, path) in sorted(by_index.items())]
  incomplete = f"The answers to {task} are not complete"
  if len(counts) > 1:
    raise ValueError(
      f"{incomplete}: {', '.join(path.name for path in paths)} are parts of "
      "several jobs. Run `infer` in a folder of its own for each NUM_SHARDS."
    )
  (count,) = counts
  missing = sorted(set(range(count)) - by_index.keys())
  if missing:
    raise ValueError(
      f"{incomplete}: of {count} parts, part {', '.join(map(str, missing))} is "
      f"missing. Run `infer` with NUM_SHARDS = {count} and --shard_id="
      f"{missing[0]}."
    )
  for path in paths:
    if not path.with_name(path.name + _COMPLETED).exists():
      raise ValueError(
        f"{incomplete}: {path.name}{_COMPLETED}, which `infer` writes at the "
        f"end, is not beside {path}. Run the same `infer` again to finish it, "
        "or copy that file too."
      )
  return paths


def _read(paths: Sequence[pathlib.Path]) -> list[Mapping[str, Any]]:
  """Read the answers of all parts; their order does not matter."""
  rows = []
  for path in paths:
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
      try:
        row = json.loads(line)
        row["prediction"], row["inputs"].keys()
      except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
          f"{path}:{number}: expected an object with `inputs` and "
          f"`prediction`, as `infer` writes them: {error}."
        ) from error
      rows.append(row)
  return rows
