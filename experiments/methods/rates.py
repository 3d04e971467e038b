"""Do methods that miss a skill of the gate recover it at another rate?

  python -m experiments.methods.rates

Trains those that miss it with four times the steps, too (`longer.json`), at a
third and at thrice the learning rate of their recipe, with the steps of the
gate, five seeds each. Writes `rates.json` and `rates.md`. What is done already,
is not done again.
"""

import json
import pathlib
import sys
from collections.abc import Mapping, Sequence

from experiments.methods import run as gate

# Of the recipes, and about a third and thrice of it.
RATES: Mapping[str, tuple[float, float, float]] = {
  "lora": (0.001, 0.003, 0.01),
  "ia3": (0.003, 0.01, 0.03),
  "norms": (0.01, 0.03, 0.1),
  "parallel_adapters": (0.001, 0.003, 0.01),
}


def main(argv: Sequence[str]) -> int:
  """Run what is missing, then write.

  Args:
    argv: the command line.

  Returns:
    The process's exit status.
  """
  given = gate.options(__doc__).parse_args(argv)
  before, results = gate.read(gate.HERE), {}
  for name, skill in missed().items():
    low, recipe, high = RATES[name]
    scores = {str(recipe): before[name]["scores"][skill]}
    for rate in (low, high):
      settings = (
        f"MIXTURE_OR_TASK_NAME=({skill!r},)",
        f"LEARNING_RATE={rate}",
        f"TRAIN_STEPS_RELATIVE={before[name]['steps']}",
      )
      found = gate.run(given, name, f"rate_{rate}", settings)
      if found is None:
        print("Stopped. The same command continues it.")
        return 1
      (title,) = found.trained
      scores[str(rate)] = found.of(title, skill)
    results[name] = {
      "skill": skill,
      "steps": before[name]["steps"],
      "scores": {str(rate): scores[str(rate)] for rate in RATES[name]},
    }
    write(results, pathlib.Path(given.output_dir))
  print(table(results))
  return 0


def missed() -> dict[str, str]:
  """Find the skill that a method misses with more steps, too."""
  longer = json.loads((gate.HERE / "longer.json").read_text("utf-8"))
  return {
    name: task
    for name, found in longer.items()
    for task, scores in found["scores"].items()
    if min(scores) < gate.ENOUGH
  }


def write(results: Mapping[str, dict], folder: pathlib.Path) -> None:
  """Write the numbers and the table."""
  numbers, page = folder / "rates.json", folder / "rates.md"
  gate.save(results, numbers, table(results), page)


def table(results: Mapping[str, dict]) -> str:
  """Write a line per method and rate."""
  lines = [
    "| method | skill | steps | learning rate | worst seed | best seed |",
    "|---|---|---:|---:|---:|---:|",
  ]
  for name, found in results.items():
    for rate, scores in found["scores"].items():
      cells = [name, found["skill"].removeprefix("skill_")]
      cells += [f"{found['steps']:,}", rate]
      cells += [f"{min(scores):.1f}", f"{max(scores):.1f}"]
      lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
