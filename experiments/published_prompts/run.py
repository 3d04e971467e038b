"""Take the best prompts of experiments into the package, each with a card.

  prompt-tuning compare --gin_file=runs/quickstart.gin --gin.MODEL_TUNING=None
  prompt-tuning compare --gin_file=experiments/published_prompts/held_out.gin
  prompt-tuning compare --gin_file=experiments/published_prompts/tall_3.gin
  python -m experiments.published_prompts.run

Of every task that a comparison trained prompts for, the seed that is best on
the validation split; what it scores on the test split stands in its card. They
are loaded by name: `embedded:prompts/opposite`.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from prompt_tuning.checkpoints import delta as deltas
from prompt_tuning.checkpoints.delta import SavedDelta
from prompt_tuning.core import embedded
from prompt_tuning.jobs import best, comparison, load
from prompt_tuning.jobs.export import Origin
from prompt_tuning.jobs.load import Tuned

HERE = pathlib.Path(__file__).parent
PACKAGE = pathlib.Path(embedded.__file__).parents[1] / "embedded" / "prompts"
RESULTS, TABLE = "results.json", "table.md"
_SKILL = "skill_"


class Source(NamedTuple):
  """A comparison whose prompts are published.

  Attributes:
    file: gin file that makes it.
    checkpoint: of the frozen model, as a user names it.
    prefix: of the names of its prompts.
  """

  file: str
  checkpoint: str = embedded.DEFAULT
  prefix: str = ""


_HERE = "experiments/published_prompts"
# By the folders of the comparisons.
COMPARISONS: Mapping[str, Source] = {
  "runs/quickstart": Source("runs/quickstart.gin"),
  "runs/held_out": Source(f"{_HERE}/held_out.gin"),
  "runs/held_out_tall_3": Source(
    f"{_HERE}/tall_3.gin", "embedded:tall_3", "tall_3_"
  ),
}


class Best(NamedTuple):
  """The best run of a task.

  Attributes:
    task: its name.
    tuned: the run.
    run: how it was trained, see `trained`.
    seed: of its training.
    seeds: how many there were.
    validation: its score there, by which it was chosen.
    test: its score there.
  """

  task: str
  tuned: Tuned
  run: Mapping[str, Any]
  seed: int
  seeds: int
  validation: float
  test: float


def main(argv: Sequence[str]) -> int:
  """Write the package's prompts, and a table of them.

  Args:
    argv: the command line.

  Returns:
    The process's exit status.
  """
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument(
    "--comparison", nargs="+", default=[*COMPARISONS], choices=[*COMPARISONS]
  )
  parser.add_argument("--prompts", default=str(PACKAGE))
  given = parser.parse_args(argv)
  known = json.loads((HERE / RESULTS).read_text(encoding="utf-8"))
  rows = {one["name"]: one for one in known}
  for comparison_folder in given.comparison:
    source = COMPARISONS[comparison_folder]
    for one in bests(pathlib.Path(comparison_folder)):
      name = source.prefix + one.task.removeprefix(_SKILL)
      deltas.write(pathlib.Path(given.prompts, name), saved(one, source))
      rows[name] = row(one, name, source)
  text = json.dumps([*rows.values()], indent=1) + "\n"
  (HERE / RESULTS).write_text(text, encoding="utf-8")
  (HERE / TABLE).write_text(table([*rows.values()]), encoding="utf-8")
  return 0


def bests(folder: pathlib.Path) -> Iterator[Best]:
  """Choose the best run of every task.

  Args:
    folder: of a comparison whose prompts were evaluated while they trained.

  Yields:
    One per task.
  """
  found = comparison.read(folder)
  (title,) = (m for m in found.trained if m != comparison.MODEL)
  tests = {(s.task, s.seed): s.score for s in found.scores if s.method == title}
  by_task: dict[str, list[tuple[float, int, best.Saved]]] = {}
  for one in best.read(folder / "prompts"):
    manifest = one.bundle.manifest
    run = manifest["run"]["runs"][manifest["run_index"]]
    score = manifest["best"]["score"]
    by_task.setdefault(run["task"], []).append((score, run["seed"], one))
  for task, runs in by_task.items():
    score, seed, one = max(runs, key=lambda run: (run[0], -run[1]))
    tuned = load.from_bundle(one.bundle, one.path)
    how = trained(one.bundle.manifest, tuned.step)
    yield Best(task, tuned, how, seed, len(runs), score, tests[task, seed])


def trained(manifest: Mapping[str, Any], step: int) -> dict[str, Any]:
  """Tell how a run was trained.

  Args:
    manifest: of its bundle.
    step: that is published.

  Returns:
    Its method with all settings, its learning rate, steps and batch size.
  """
  run, number = manifest["run"], manifest["run_index"]
  start = run["start_step"]
  return {
    "method": run["tuners"][number],
    "learning rate": str(run["runs"][number]["learning_rate"]),
    "steps": f"{step - start:,}, after the model's {start:,}",
    "examples per step": str(run["data"]["batch_size"]),
  }


def saved(one: Best, source: Source) -> SavedDelta:
  """Make what is written of a prompt.

  Args:
    one: the prompt.
    source: where it was trained.

  Returns:
    The prompt with its card.
  """
  tuned = one.tuned
  (method,), (task,), (step,) = tuned.methods, tuned.tasks, tuned.steps
  origin = Origin(
    method, task, step, tuned.fingerprint, vocabulary=tuned.vocabulary
  )
  (placement,) = tuned.runs.placements
  about = {
    **origin.about,
    "scores": {"validation": one.validation, "test": one.test},
    **card(one, source),
  }
  return SavedDelta(tuned.runs.delta, placement, about)


def card(one: Best, source: Source) -> dict[str, Any]:
  """Make what a card says of a prompt's training; see `saved`."""
  # The methods of a run that was loaded have no initialisers of their own.
  method, how = one.run["method"], dict(one.run)
  del how["method"]
  packaged = not source.file.startswith(_HERE)
  where = "" if packaged else ", in a checkout of the project"
  return {
    "method": method,
    "settings": {
      "checkpoint": source.checkpoint,
      "prompt length": str(method["encoder_length"]),
      **how,
      "seed": f"{one.seed}, the best of {one.seeds} on the validation split",
      "trained by": f"prompt-tuning compare --gin_file={source.file}{where}",
    },
  }


def row(one: Best, name: str, source: Source) -> dict[str, Any]:
  """Describe a prompt for the table.

  Args:
    one: the prompt.
    name: that it is loaded by.
    source: where it was trained.

  Returns:
    JSON values.
  """
  return {
    "name": name,
    "model": source.checkpoint,
    "task": one.task,
    "numbers": int(one.tuned.runs.delta.virtual.size),
    "step": one.tuned.step,
    "seed": one.seed,
    "validation": one.validation,
    "test": one.test,
  }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Lay the prompts out in Markdown.

  Args:
    rows: see `row`.

  Returns:
    The table.
  """
  heads = ["`embedded:prompts/`", "model", "task"]
  heads += ["numbers", "seed", "validation", "test"]
  lines = [f"| {' | '.join(heads)} |", "|---" * 3 + "|---:" * 4 + "|"]
  for one in rows:
    cells = [
      f"`{one['name']}`",
      f"`{one['model']}`",
      f"`{one['task']}`",
      f"{one['numbers']:,}",
      str(one["seed"]),
      f"{one['validation']:.1f}",
      f"{one['test']:.1f}",
    ]
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
