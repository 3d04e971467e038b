"""All methods on real tasks: score against trained parameters.

  python -m experiments.methods.real --tfds_data_dir tfds

Trains every method of `run.py` by its own recipe, and the whole model, on each
task of `tasks/`; writes `real.json`, `real.md` and `real.png`. What is done
already, is not done again: a method or a task that is added later costs its own
time, and what is not asked for stays in those files as it is.
"""

import argparse
import json
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.methods import run as gate
from prompt_tuning.jobs import compare, comparison, comparison_report
from prompt_tuning.jobs.comparison import Comparison, Score
from prompt_tuning.launch import command, flags, gin_config

HERE = pathlib.Path(__file__).parent
RESULTS, TABLE, FIGURE = "real.json", "real.md", "real.png"
# Task -> its name on the page; each has a file in `tasks/`. The first has the
# costs in the table.
TASKS: Mapping[str, str] = {
  "ag_news": "AG News",
  "dbpedia": "DBpedia",
  "sst2": "SST-2",
}
# Settings of the gate that are of its skills: their answers, and more steps.
_OF_SKILLS = (gate.LONGER, "LABEL_WORDS=ANSWERS")
# The files of some methods say something else of words than the task's.
_OWN: Mapping[str, tuple[str, ...]] = {
  "warp": ("tuners.Warp.label_words=None",),
  # Whole words are read as several texts in a row, before which a prefix has no
  # position; that of first pieces is one.
  **dict.fromkeys(
    ("prefix_positions", "prefix_mlp"), ("SCORER=@scorers.FirstPiece()",)
  ),
}
WITH_MODEL = "prompt"  # whose comparison also tunes the model
_MAPPINGS = (
  *("seconds", "steps", "trained", "runs"),
  *("step_seconds", "step_bytes", "disk_bytes"),
)


def main(argv: Sequence[str]) -> int:
  """Run what is missing, then write.

  Args:
    argv: the command line.

  Returns:
    The process's exit status.
  """
  parser = argparse.ArgumentParser(description=__doc__)
  add = parser.add_argument
  add("--task", nargs="+", default=list(TASKS), choices=TASKS)
  add("--method", nargs="+", default=list(gate.METHODS), choices=gate.METHODS)
  add("--work_dir", default="runs/methods_real")
  add("--output_dir", default=str(HERE))
  add("--tfds_data_dir", help="prepared data of the tasks")
  add("--gin", nargs="*", default=[], metavar="NAME=VALUE", help="overrides")
  given = parser.parse_args(argv)
  out = pathlib.Path(given.output_dir)
  for task in given.task:
    found: dict[str, Comparison] = {}
    for name in given.method:
      one = run(given, task, name)
      if one is None:
        print("Stopped. The same command continues it.")
        return 1
      found[name] = one
      results, new = read(out), together(found)
      results[task] = merged(results[task], new) if task in results else new
      write(results, out)
  print(by_task(read(out)))
  return 0


def run(given: argparse.Namespace, task: str, name: str) -> Comparison | None:
  """Train and score one method on one task, unless that is done."""
  folder = pathlib.Path(given.work_dir, task, name)
  if (folder / comparison.FILE).is_file():
    return comparison.read(folder)
  print(f"== {task}, {name}", flush=True)
  argv = arguments(task, name, folder, given.gin)
  job = command.configure("compare", flags.parse("compare", argv, ""))
  return compare.compare(
    job,
    given.tfds_data_dir,
    configuration=gin_config.texts(),
    say=lambda text: None,
  )


def arguments(
  task: str, name: str, folder: pathlib.Path, bindings: Sequence[str] = ()
) -> list[str]:
  """Write the arguments of `compare` for a method.

  Args:
    task: of `TASKS`.
    name: of `gate.METHODS`.
    folder: for the trainings.
    bindings: further gin settings.

  Returns:
    The words after `prompt-tuning compare`.
  """
  files, settings = gate.METHODS[name]
  settings = tuple(s for s in settings if s not in _OF_SKILLS)
  settings = (*settings, "LABEL_WORDS=%WORDS", *_OWN.get(name, ()))
  if name == WITH_MODEL:
    settings = (*settings, "MODEL_TUNING=@models/train()")
  return [
    f"--gin_file={HERE / 'tasks' / task}.gin",
    *(f"--gin_file={file}.gin" for file in files),
    f"--gin.MODEL_DIR={str(folder)!r}",
    *(f"--gin.{binding}" for binding in (*settings, *bindings)),
  ]


def together(found: Mapping[str, Comparison]) -> Comparison:
  """Make one comparison of those of all methods, which have names of their own.

  Args:
    found: name -> comparison of one method with its controls.

  Returns:
    The scores and costs of all; random controls are left out.
  """
  first = next(iter(found.values()))
  scores = [s for s in first.scores if s.method == comparison.PLAIN]
  values: dict[str, dict[str, Any]] = {name: {} for name in _MAPPINGS}
  for name, one in found.items():
    for title in one.trained:
      shown = title if title == comparison.MODEL else name
      scores += [
        Score(shown, s.task, s.seed, s.score)
        for s in one.scores
        if s.method == title
      ]
      for field in _MAPPINGS:
        if title in getattr(one, field):
          values[field][shown] = getattr(one, field)[title]
  frozen = all(one.frozen for one in found.values())
  return Comparison(
    tuple(scores), parameters=first.parameters, frozen=frozen, **values
  )


def merged(before: Comparison, new: Comparison) -> Comparison:
  """Put methods beside those of an older comparison, in the gate's order.

  Args:
    before: what `together` made, of any methods.
    new: the same; it counts where both have a method.

  Returns:
    The methods of both.

  Raises:
    ValueError: they are of two models, or of other tasks.
  """
  of = (before.parameters, before.tasks), (new.parameters, new.tasks)
  if of[0] != of[1]:
    raise ValueError(
      f"{RESULTS} is of a model of {of[0][0]:,} parameters on {of[0][1]}, "
      f"these trainings of {of[1][0]:,} on {of[1][1]}: choose another "
      "--output_dir."
    )
  order = [comparison.PLAIN]
  for name in gate.METHODS:
    order += [name, comparison.MODEL] if name == WITH_MODEL else [name]
  # The frozen model's score stays: a method may be scored in a way of its own.
  renewed = set(new.methods) - {comparison.PLAIN}
  scores = [s for s in before.scores if s.method not in renewed]
  scores += [s for s in new.scores if s.method in renewed]
  scores = [s for s in scores if s.method in order]
  scores.sort(key=lambda score: order.index(score.method))
  values: dict[str, dict[str, Any]] = {}
  for field in _MAPPINGS:
    both = {**getattr(before, field), **getattr(new, field)}
    values[field] = {name: both[name] for name in order if name in both}
  return Comparison(
    tuple(scores),
    parameters=new.parameters,
    frozen=before.frozen and new.frozen,
    **values,
  )


def across(results: Mapping[str, Comparison]) -> Comparison:
  """Make one comparison of those of all tasks.

  Args:
    results: task -> comparison of all methods on it.

  Returns:
    The methods that have scores of every task; their costs on the first one.
  """
  first, *others = results.values()
  shared = set(first.methods).intersection(*(one.methods for one in others))
  scores = tuple(
    score
    for one in results.values()
    for score in one.scores
    if score.method in shared
  )
  costs = {
    field: {
      name: value
      for name, value in getattr(first, field).items()
      if name in shared
    }
    for field in _MAPPINGS
  }
  frozen = all(one.frozen for one in results.values())
  return first._replace(scores=scores, frozen=frozen, **costs)


def by_task(results: Mapping[str, Comparison]) -> str:
  """Format the scores of every method on every task as Markdown.

  Args:
    results: task -> comparison of all methods on it.

  Returns:
    A row per method; a cell is empty where it was not run.
  """
  names = [TASKS[task] for task in results]
  lines = [f"| method | {' | '.join(names)} |", "|---" + "|---:" * len(names)]
  lines[-1] += "|"
  methods = dict.fromkeys(m for one in results.values() for m in one.methods)
  for method in methods:
    cells = []
    for one in results.values():
      scores = [s.score for s in one.scores if s.method == method]
      cell = f"{statistics.fmean(scores):.1f}" if scores else ""
      if len(scores) > 1:
        cell += f" ± {statistics.stdev(scores):.1f}"
      cells.append(cell)
    lines.append(f"| {method} | {' | '.join(cells)} |")
  return "\n".join(lines) + "\n"


def write(results: Mapping[str, Comparison], folder: pathlib.Path) -> None:
  """Write the numbers, the tables and the plot."""
  content: dict[str, dict[str, Any]] = {}
  for task, one in results.items():
    content[task] = one._asdict()
    content[task]["scores"] = [score._asdict() for score in one.scores]
    content[task]["made_of"] = dict(one.made_of)
  whole = across(results)
  text = f"{by_task(results)}\n{comparison_report.as_markdown(whole)}"
  gate.save(content, folder / RESULTS, text, folder / TABLE)
  comparison_report.draw(whole, folder / FIGURE)


def read(folder: pathlib.Path) -> dict[str, Comparison]:
  """Read what `write` wrote; nothing, where it never did.

  Args:
    folder: of the experiment.

  Returns:
    Task -> comparison of all methods on it.
  """
  path = folder / RESULTS
  if not path.is_file():
    return {}
  content = json.loads(path.read_text(encoding="utf-8"))
  for one in content.values():
    one["scores"] = tuple(Score(**score) for score in one["scores"])
  return {task: Comparison(**one) for task, one in content.items()}


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
