"""Score what a sweep trained, on tasks of one's choice.

What the folders of tables 1 to 3 have in common: their command line, the cells
of a sweep, and answers of several runs from one frozen model.
"""

import argparse
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from prompt_tuning.checkpoints import json_files
from prompt_tuning.core import files
from prompt_tuning.core.schema import ANY, TEXT, Each
from prompt_tuning.infer.evaluate import Evaluator, Job, Result
from prompt_tuning.jobs import feed, inference, sweep, sweep_cell
from prompt_tuning.jobs.eval_job import EvalJob
from prompt_tuning.launch import command, flags

RESULTS, TABLE, FIGURE = "results.json", "table.md", "figure.png"
_SWEEP = {"axes": [TEXT], "cells": Each(ANY)}


class Scoring(NamedTuple):
  """What is scored, and with what.

  Attributes:
    sweep: its MODEL_DIR.
    output_dir: for the results.
    checkpoint: of the frozen model.
    vocabulary: its.
    data_dir: TFDS's.
    examples: to score, of every set; None for all.
    settings: words of the command line of `eval`, after our own.
  """

  sweep: str
  output_dir: pathlib.Path
  checkpoint: str
  vocabulary: str
  data_dir: str | None
  examples: int | None
  settings: tuple[str, ...] = ()


def parser(
  description: str | None, folder: pathlib.Path
) -> argparse.ArgumentParser:
  """Make the parser of an experiment's command line.

  Args:
    description: of the experiment.
    folder: the experiment's.

  Returns:
    A parser whose result `scoring` reads.
  """
  made = argparse.ArgumentParser(
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = made.add_argument
  add("--sweep", default=f"runs/{folder.name}", help="its MODEL_DIR")
  add("--output_dir", default=str(folder), help="for results, table, figure")
  add("--checkpoint", default="embedded:ladder_1", help="what was frozen")
  add("--vocabulary", default="embedded:ladder_1")
  add("--tfds_data_dir")
  add("--examples", default="256", help="of every set; `all` for all")
  add("--gin_file", nargs="*", default=[], help="gin files of `eval`")
  add("--gin", nargs="*", default=[], metavar="NAME=VALUE", help="overrides")
  return made


def scoring(given: argparse.Namespace) -> Scoring:
  """Read what `parser` parsed."""
  return Scoring(
    given.sweep,
    pathlib.Path(given.output_dir),
    given.checkpoint,
    given.vocabulary,
    given.tfds_data_dir,
    None if given.examples == "all" else int(given.examples),
    (
      *(f"--gin_file={name}" for name in given.gin_file),
      *(f"--gin.{binding}" for binding in given.gin),
    ),
  )


def in_one_line(error: Exception, remedy: str) -> SystemExit:
  """Make of an error the line with which a command ends.

  Args:
    error: perhaps of several lines.
    remedy: what to do about it.

  Returns:
    What to raise.
  """
  return SystemExit(" ".join([*str(error).split(), *remedy.split()]))


def read_json(path: pathlib.Path, what: str, wanted: Any, remedy: str) -> Any:
  """Read a JSON file that a user named, or that lies where a user said.

  Args:
    path: the file.
    what: it should be, for the message.
    wanted: see `core.schema`.
    remedy: what to do if it is something else.

  Returns:
    Its value.

  Raises:
    SystemExit: it cannot be read, or is something else.
  """
  try:
    content = json_files.read(path, what)
    json_files.check(path, content, wanted)
  except (OSError, ValueError) as error:
    raise in_one_line(error, remedy) from error
  return content


def cells(folder: str, axes: Sequence[str] = ()) -> list[pathlib.Path]:
  """List the cells of a sweep that is done.

  Args:
    folder: its MODEL_DIR.
    axes: that it needs to have, such as `@tuning`; others may be there, too.

  Returns:
    The folders of its cells.

  Raises:
    SystemExit: the sweep is not done, or has not these axes.
  """
  described = pathlib.Path(folder, sweep.FILE)
  if not described.is_file():
    raise SystemExit(
      f"{folder} has no {sweep.FILE}; expected the MODEL_DIR of a sweep. Give "
      "another --sweep."
    )
  content = read_json(
    described, "the description of a sweep", _SWEEP, "Give another --sweep."
  )
  if not set(axes) <= set(content["axes"]):
    raise SystemExit(
      f"{folder} has a sweep over {', '.join(content['axes'])}; expected one "
      f"over {', '.join(axes)}, too. Give another --sweep."
    )
  names = sorted(content["cells"])
  found = [pathlib.Path(folder, sweep.CELLS, name) for name in names]
  missing = [path.name for path in found if not sweep_cell.is_whole(path)]
  if missing:
    raise SystemExit(
      f"{len(missing)} of the {len(names)} cells in {folder} are not done, "
      f"such as {missing[0]}. Finish the sweep: the same command continues it."
    )
  return found


def read_cell(folder: pathlib.Path) -> dict[str, Any]:
  """Read the results of a cell, see `sweep_cell.read`.

  Args:
    folder: of the cell.

  Raises:
    SystemExit: they are damaged.
  """
  try:
    return sweep_cell.read(folder)
  except ValueError as error:
    raise in_one_line(error, "") from error


def named_folder(text: str) -> str:
  """Insist on NAME=PATH, for `type` of a flag; returns the text."""
  name, _, path = text.partition("=")
  if not (files.is_name(name) and path):
    raise argparse.ArgumentTypeError(
      "expected NAME=PATH, such as tall_1=runs/tall_1, where NAME can be a "
      f"folder's; got {text!r}"
    )
  return text


def configured(
  folders: Sequence[pathlib.Path],
  tasks: Sequence[str],
  scored: Scoring,
  settings: Sequence[str] = (),
) -> EvalJob:
  """Configure `eval`, see `results`."""
  names = [str(folder) for folder in folders]
  argv = [
    "--gin_file=models/of_checkpoint.gin",
    "--gin_file=runs/prompt_eval.gin",
    "--gin_file=meshes/single.gin",
    "--gin.ACTIVATION_DTYPE='float32'",
    f"--gin.INITIAL_CHECKPOINT_PATH={scored.checkpoint!r}",
    "--gin.CHECKPOINT_PATH=%INITIAL_CHECKPOINT_PATH",
    f"--gin.VOCABULARY_FILE={scored.vocabulary!r}",
    f"--gin.PROMPT_FILE={names if len(names) > 1 else names[0]!r}",
    f"--gin.MIXTURE_OR_TASK_NAME={tuple(tasks)!r}",
    "--gin.EVAL_OUTPUT_DIR=''",
    f"--gin.EVALUATOR_NUM_EXAMPLES={scored.examples}",
    *settings,
    *scored.settings,
  ]
  return command.configure("eval", flags.parse("eval", argv, ""))


def results(
  folders: Sequence[pathlib.Path],
  tasks: Sequence[str],
  scored: Scoring,
  *settings: str,
) -> list[Result]:
  """Score runs that one frozen model answers, or one tuned model.

  Args:
    folders: of cells.
    tasks: what to answer.
    scored: with what.
    *settings: words of the command line of `eval`.

  Returns:
    For every task, a result of each run.
  """
  job = configured(folders, tasks, scored, settings)
  how = job.evaluation
  ready = inference.prepare(job, how.dataset)
  sets = [
    one
    for name in tasks
    for one in feed.eval_sets(
      how.dataset, name, scored.data_dir, how.num_examples
    )
  ]
  runs = range(len(ready.prompts.names))
  return Evaluator(
    ready.predictor,
    [Job(one, run) for one in sets for run in runs],
    by=how.ways,
    length=how.max_decode_length,
    method=how.decoder,
  )()


def write(
  results: Any,
  table: Callable[[Any], str],
  draw: Callable[[Any, pathlib.Path], None],
  folder: pathlib.Path,
) -> None:
  """Write results, table and figure; what makes none changes no file.

  Args:
    results: of JSON values.
    table: lays them out in Markdown.
    draw: draws them.
    folder: where to.
  """
  text = table(results)
  folder.mkdir(parents=True, exist_ok=True)
  draw(results, folder / FIGURE)
  (folder / TABLE).write_text(text, encoding="utf-8")
  content = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
  (folder / RESULTS).write_text(content, encoding="utf-8")
