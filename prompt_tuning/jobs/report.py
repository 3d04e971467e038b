"""`prompt-tuning report`: a run, a comparison or a sweep as one HTML page.

It reads only the files of the folder, which may come from a stranger, and loads
no model.
"""

import json
import logging
import os
import pathlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from prompt_tuning.checkpoints import bundle
from prompt_tuning.core import files
from prompt_tuning.data import judging, postprocessors, spec
from prompt_tuning.data.metrics import qa
from prompt_tuning.jobs import comparison, contents, inspect
from prompt_tuning.jobs.report_page import (
  Line,
  bars,
  chart,
  code,
  folded,
  heading,
  page,
  paragraph,
  table,
)
from prompt_tuning.train import logs

logger = logging.getLogger(__name__)

FILE = "report.html"
_SUMMARY, _CONFIG = "summary.txt", "config.gin"
_ANSWERS, _CELLS, _SWEEP = "inference_eval", "cells", "sweep.json"
_LOSS, _SCORE = "train/loss", "selection/score"
_SPEED = "train/timing/steps_per_second"
_MEMORY = "train/step_bytes"
_SHOWN = 200  # predictions of one task
_LIMIT = 64 << 20  # bytes of a file of answers
_DEPTH = 3  # folders between a comparison and a training of it
_LONG = 400  # letters of a text in a table
_REPETITIONS = ("SEEDS", "RANDOM_SEED")


class Answer(NamedTuple):
  """One prediction.

  Attributes:
    text: the input.
    target: the right answer.
    prediction: the model's answer.
    is_right: as the metrics of its task see it.
  """

  text: str
  target: str
  prediction: str
  is_right: bool


def write(folder: str, out: str | None = None) -> str:
  """Write the page.

  Args:
    folder: MODEL_DIR of `train`, `compare` or `sweep`.
    out: the file; None for `report.html` in the folder.

  Returns:
    Where it is.

  Raises:
    ValueError: the folder is none of these, or the page cannot be written.
  """
  root = files.path(folder)
  target = files.path(out) if out else root / FILE
  title = "/".join(os.fspath(folder).rstrip("/").split("/")[-2:])
  if (root / comparison.FILE).is_file():
    text = page(title, _comparison(root))
  elif (root / _CELLS).is_dir() or (root / _SWEEP).is_file():
    text = page(title, _sweep(root))
  elif contents.is_run(root):
    text = page(title, _run(root))
  else:
    raise ValueError(
      f"{folder} is not a folder of `train`, `compare` or `sweep`: it has no "
      f"bundles, no {comparison.FILE} and no {_CELLS}. Name the MODEL_DIR of "
      "a run that has begun."
    )
  files.write_text(target, text)
  return os.fspath(target)


def _run(root: pathlib.Path) -> Iterator[str]:
  """Write the parts of a training's page."""
  described = inspect.report(os.fspath(root))
  facts, runs = described["about"], described["runs"]
  entries = logs.read(root)
  tasks = list(dict.fromkeys(str(run["task"]) for run in runs))
  yield paragraph(
    f"{facts.get('method', 'Tuning')} on {', '.join(tasks)}; "
    f"{len(runs)} {'run' if len(runs) == 1 else 'runs side by side'}."
  )
  yield heading("Scores")
  yield table(
    ("run", "task", "seed", "best step", "score"),
    [
      [r[k] for k in ("name", "task", "seed", "best_step", "score")]
      for r in runs
    ],
  )
  yield from _curves(entries, runs)
  yield from _words(root)
  yield from _predictions(root / _ANSWERS)
  latest = bundle.latest_manifest(root / bundle.BUNDLES)
  start = latest["run"]["start_step"] if latest else 0
  yield from _cost(entries, facts, start)
  yield from _settings(root)


def _curves(
  entries: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
  """Draw loss and score over the steps."""
  drawn = {
    name: chart(_lines(entries, runs, tag), "step", name)
    for name, tag in (("score", _SCORE), ("training loss", _LOSS))
  }
  if any(drawn.values()):
    yield heading("Curves")
    yield from filter(None, drawn.values())


def _lines(
  entries: Sequence[Mapping[str, Any]],
  runs: Sequence[Mapping[str, Any]],
  tag: str,
) -> list[Line]:
  made = []
  for k, run in enumerate(runs):
    points = [
      (entry["step"], entry[tag])
      for entry in entries
      if entry["run"] == k and tag in entry
    ]
    name = run["name"] or run["task"] or f"run {k}"
    made.append(Line(str(name), points))
  return made


def _words(root: pathlib.Path) -> Iterator[str]:
  """Take the nearest words from the summary."""
  blocks = _read(root / _SUMMARY).split("\n\n")
  about = [block for block in blocks if "cosine" in block]
  if about:
    yield heading("Nearest words")
    yield folded("of each vector", [code("\n\n".join(about))])


def _predictions(folder: pathlib.Path) -> Iterator[str]:
  """Show answers of the last step, the wrong ones first."""
  newest = {}
  if folder.is_dir():
    for path in sorted(folder.rglob("*.jsonl")):
      name, dash, step = path.stem.rpartition("-")
      if dash and step.isdigit():
        newest[str((path.parent / name).relative_to(folder))] = path
  if not newest:
    return
  yield heading("Predictions")
  for name, path in newest.items():
    answers = _answers(path, _task(name.rpartition("/")[2]))
    wrong = sum(not a.is_right for a in answers)
    answers = sorted(answers, key=lambda a: a.is_right)
    title = f"{name}: {wrong} of {len(answers)} are wrong"
    if len(answers) > _SHOWN:
      title += f"; {_SHOWN} are shown"
    rows = [(a.prediction, a.target, a.text) for a in answers[:_SHOWN]]
    kinds = ["right" if a.is_right else "wrong" for a in answers[:_SHOWN]]
    yield folded(title, [table(("prediction", "target", "input"), rows, kinds)])


def _task(name: str) -> spec.TaskSpec | None:
  """Find a task by its name; a task of the user may be unknown here."""
  try:
    return spec.task(name)
  except ValueError:
    return None


def _answers(path: pathlib.Path, task: spec.TaskSpec | None) -> list[Answer]:
  """Read a file of predictions; lines of other kinds are skipped."""
  answers, unjudged = [], ""
  judge = judging.of_task(task) if task else None
  for line in _read(path).splitlines():
    if (record := _record(line)) is None:
      continue
    example, target, prediction = record
    written = example.get("targets_pretokenized", target)
    is_right = _is_right(prediction, target, written)
    if judge is not None:
      try:
        is_right = judge(prediction, example)
      except Exception as error:  # line and task may be anybody's
        unjudged = unjudged or f"{type(error).__name__}: {error}"
    text = example.get("inputs_pretokenized", "")
    asked, wanted, given = map(_short, (text, written, prediction))
    answers.append(Answer(asked, wanted, given, is_right))
  if unjudged:
    logger.warning(
      "%s: its task cannot judge the predictions (%s), so their texts are "
      "compared with the targets.",
      *(path, unjudged),
    )
  return answers


def _record(line: str) -> tuple[Mapping[str, Any], Any, Any] | None:
  """Parse a line of predictions: example, target and prediction.

  Returns:
    None for a line of another kind.
  """
  try:
    record = json.loads(line)
  except ValueError:
    return None
  if not isinstance(record, Mapping) or "target" not in record:
    return None
  keys = [k for k in ("prediction", "rank_prediction") if k in record]
  example = record.get("input")
  if not keys or not isinstance(example, Mapping):
    return None
  return example, record["target"], record[keys[0]]


def _is_right(prediction: Any, target: Any, written: Any) -> bool:
  """Compare a prediction with its target, for any task.

  If several answers are allowed, case, punctuation and articles do not count,
  as in the metrics of such tasks.
  """
  if isinstance(target, Mapping):
    target = target.get("value")
  if isinstance(target, float):
    return postprocessors.to_float(prediction) == target
  if not isinstance(target, Sequence) or isinstance(target, str):
    return prediction in (target, written)
  allowed = {qa.normalize(str(answer)) for answer in target}
  return qa.normalize(str(prediction)) in allowed


def _cost(
  entries: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], start: int
) -> Iterator[str]:
  """Say how long training took, and what was trained."""
  of_first = [entry for entry in entries if entry["run"] == 0]
  speeds = [e[_SPEED] for e in of_first if e.get(_SPEED)]
  memory = [e[_MEMORY] for e in of_first if e.get(_MEMORY)]
  rows: list[tuple[str, object]] = []
  if of_first:
    rows.append(("last step", of_first[-1]["step"]))
  if speeds:
    rows.append(("steps per second, median", statistics.median(speeds)))
    rows.append(("training, seconds", _seconds(of_first, start)))
  if memory:
    rows.append(("memory of a step, MB", max(memory) / 1e6))
  rows += [(str(name), _short(value)) for name, value in facts.items()]
  yield heading("Cost and origin")
  yield table(("what", ""), rows)


def _seconds(entries: Sequence[Mapping[str, Any]], start: int) -> float:
  """Add up the time of the steps in a log, without evaluations."""
  before, total = start, 0.0
  for entry in entries:
    if entry.get(_SPEED):
      total += (entry["step"] - before) / entry[_SPEED]
      before = entry["step"]
  return total


def _settings(root: pathlib.Path) -> Iterator[str]:
  text = _read(root / _CONFIG)
  if text:
    yield heading("Settings")
    yield folded(_CONFIG, [code(text)])


def _comparison(root: pathlib.Path) -> Iterator[str]:
  """Write the parts of a comparison's page."""
  compared = comparison.read(os.fspath(root))
  means = {method: compared.mean(method) for method in compared.methods}
  yield paragraph(
    f"{len(means)} methods on {', '.join(compared.tasks)}, on one frozen model "
    f"of {compared.parameters:,} parameters"
    + (", which is unchanged." if compared.frozen else ", which HAS CHANGED.")
  )
  yield heading("Scores")
  yield bars(means, "mean score of the test splits")
  head = ("method", *compared.tasks, "mean")
  rows = [
    (
      method,
      *(_spread(compared.of(method, task)) for task in compared.tasks),
      mean,
    )
    for method, mean in means.items()
  ]
  yield table(head, rows)
  points = [
    Line(method, [(compared.trained[method], means[method])])
    for method in means
    if compared.trained.get(method)
  ]
  if len(points) > 1:
    yield chart(points, "trained parameters", "score", joined=False, log=True)
  yield heading("Cost")
  names = ("trained", "steps", "runs", "seconds", "step_seconds")
  yield table(
    (
      "method",
      "trained",
      "steps",
      "runs",
      "seconds",
      "s / step",
      "step MB",
      "KB",
    ),
    [
      (
        method,
        *(getattr(compared, name).get(method) for name in names),
        _scaled(compared.step_bytes.get(method), 1e6),
        _scaled(compared.disk_bytes.get(method), 1e3),
      )
      for method in means
      if compared.trained.get(method)
    ],
  )
  yield from _parts_of(root)


def _parts_of(root: pathlib.Path) -> Iterator[str]:
  """Write a comparison's trainings, with predictions, into folded sections."""
  trainings = list(_trainings(root))
  if trainings:
    yield heading("Trainings")
  for path in trainings:
    yield folded(str(path.relative_to(root)), _run(path))


def _trainings(
  folder: pathlib.Path, depth: int = _DEPTH
) -> Iterator[pathlib.Path]:
  """Find trainings below a folder; in a bucket, list one folder at a time."""
  if contents.is_run(folder):
    yield folder
  elif depth:
    for path in sorted(folder.iterdir()):
      if path.is_dir():
        yield from _trainings(path, depth - 1)


def _sweep(root: pathlib.Path) -> Iterator[str]:
  """Write the parts of a sweep's page."""
  from prompt_tuning.jobs import sweep_report

  points, missing = _cells(root)
  axes = list(points[0].values) if points else []
  repeated = [axis for axis in axes if axis in _REPETITIONS]
  grouped = sweep_report.groups(points, repeated)
  done = len({point.cell for point in points})
  yield paragraph(
    f"A sweep over {', '.join(axes) or 'cells that are not done'}; {done} of "
    f"{done + len(missing)} cells are done."
  )
  yield heading("Scores")
  shown = [axis for axis in axes if axis not in repeated]
  yield table(
    (*shown, "score", "runs"),
    [
      (*(g.values[a] for a in shown), _spread(g.scores), len(g.scores))
      for g in grouped
    ],
  )
  for axis in shown:
    yield from _against(axis, grouped)
  if missing:
    yield folded(
      f"{len(missing)} cells are not done", [code("\n".join(missing))]
    )
  yield heading("Runs")
  yield folded(
    "every run",
    [
      table(
        (*axes, "run", "task", "seed", "parameters", "step", "score"),
        [
          (
            *p.values.values(),
            p.run,
            p.task,
            p.seed,
            p.parameters,
            p.step,
            p.score,
          )
          for p in points
        ],
      )
    ],
  )
  for path in sorted((root / _CELLS).glob("*"))[:1]:
    yield from _settings(path)


def _planned(root: pathlib.Path) -> Sequence[str]:
  """List the cells that a sweep is made of."""
  from prompt_tuning.jobs import sweep

  try:
    text = files.read_bytes(root / sweep.FILE, _LIMIT)
  except FileNotFoundError:
    return ()
  return tuple(json.loads(text).get("cells", {}))


def _cells(root: pathlib.Path) -> tuple[list[Any], list[str]]:
  """Read the cells that are done, and name the others."""
  from prompt_tuning.jobs import sweep_cell, sweep_report

  points, missing = [], []
  # A cell has no folder before it ends, but the sweep's file names all cells.
  for name in sorted(
    {path.name for path in (root / _CELLS).glob("*")} | set(_planned(root))
  ):
    path = root / _CELLS / name
    if not sweep_cell.is_whole(path):
      missing.append(name)
      continue
    content = sweep_cell.read(path)
    points += [
      sweep_report.Point(
        path.name,
        content["values"],
        run.get("name", ""),
        *(run["task"], run["seed"], content["parameters"]),
        *(run["step"], run["score"], run["metrics"]),
      )
      for run in content["runs"]
    ]
  return points, missing


def _against(axis: str, grouped: Sequence[Any]) -> Iterator[str]:
  """Draw the score over an axis of numbers, a line per value of the others."""
  lines: dict[str, list[tuple[float, float]]] = {}
  for group in grouped:
    try:
      x = float(group.values[axis])
    except ValueError:
      return
    others = [f"{a} {v}" for a, v in group.values.items() if a != axis]
    lines.setdefault(", ".join(others), []).append((x, group.mean))
  xs = sorted({x for points in lines.values() for x, _ in points})
  if len(xs) > 1:
    is_log = xs[0] > 0 and xs[-1] / xs[0] > 10
    made = [Line(name, sorted(points)) for name, points in lines.items()]
    yield chart(made, axis, "score", log=is_log)


def _spread(scores: Sequence[float]) -> str:
  """Write mean and deviation."""
  if not scores:
    return ""
  text = f"{statistics.fmean(scores):.1f}"
  if len(scores) > 1:
    text += f" ± {statistics.stdev(scores):.1f}"
  return text


def _scaled(value: float | None, by: float) -> float | None:
  return None if value is None else value / by


def _short(value: Any) -> str:
  """Write a value in one line of a table."""
  text = value if isinstance(value, str) else json.dumps(value, default=str)
  return text if len(text) <= _LONG else f"{text[:_LONG]}…"


def _read(path: pathlib.Path) -> str:
  """Read a text file of the folder; empty if it is not there."""
  try:
    return files.read_bytes(path, _LIMIT).decode("utf-8", "replace")
  except FileNotFoundError:
    return ""
  except (OSError, ValueError) as error:
    logger.warning("%s is left out: %s", path, error)
    return ""
