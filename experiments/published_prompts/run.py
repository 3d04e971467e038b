"""Take the best prompts of experiments into the package, each with a card.

  prompt-tuning compare --gin_file=runs/quickstart.gin --gin.MODEL_TUNING=None
  prompt-tuning compare --gin_file=experiments/published_prompts/held_out.gin
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
# A comparison's folder -> the gin file that makes it.
COMPARISONS: Mapping[str, str] = {
  "runs/quickstart": "runs/quickstart.gin",
  "runs/held_out": "experiments/published_prompts/held_out.gin",
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

  @property
  def name(self) -> str:
    """What it is loaded by."""
    return self.task.removeprefix(_SKILL)


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
  parser.add_argument("--checkpoint", default=embedded.DEFAULT)
  parser.add_argument("--prompts", default=str(PACKAGE))
  given = parser.parse_args(argv)
  known = json.loads((HERE / RESULTS).read_text(encoding="utf-8"))
  rows = {one["name"]: one for one in known}
  for comparison_folder in given.comparison:
    file = COMPARISONS[comparison_folder]
    for one in bests(pathlib.Path(comparison_folder)):
      folder = pathlib.Path(given.prompts, one.name)
      deltas.write(folder, saved(one, given.checkpoint, file))
      rows[one.name] = row(one)
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


def saved(one: Best, checkpoint: str, file: str) -> SavedDelta:
  """Make what is written of a prompt.

  Args:
    one: the prompt.
    checkpoint: as a user names it.
    file: the gin file of the comparison.

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
    **card(one, checkpoint, file),
  }
  return SavedDelta(tuned.runs.delta, placement, about)


def card(one: Best, checkpoint: str, file: str) -> dict[str, Any]:
  """Make what a card says of a prompt's training; see `saved`."""
  # The methods of a run that was loaded have no initialisers of their own.
  method, how = one.run["method"], dict(one.run)
  del how["method"]
  where = "" if file.startswith("runs/") else ", in a checkout of the project"
  return {
    "method": method,
    "settings": {
      "checkpoint": checkpoint,
      "prompt length": str(method["encoder_length"]),
      **how,
      "seed": f"{one.seed}, the best of {one.seeds} on the validation split",
      "trained by": f"prompt-tuning compare --gin_file={file}{where}",
    },
  }


def row(one: Best) -> dict[str, Any]:
  """Describe a prompt for the table.

  Args:
    one: the prompt.

  Returns:
    JSON values.
  """
  return {
    "name": one.name,
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
  lines = [
    "| `embedded:prompts/` | task | numbers | seed | validation | test |",
    "|---|---|---:|---:|---:|---:|",
  ]
  for one in rows:
    cells = [
      f"`{one['name']}`",
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
