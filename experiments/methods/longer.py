"""Do methods that miss a skill of the gate recover it with more steps?

  python -m experiments.methods.longer

Trains those that `results.json` says miss a skill on the skill that they miss,
with four times the steps, five seeds each. Writes `longer.json` and
`longer.md`. What is done already, is not done again.
"""

import pathlib
import sys
from collections.abc import Mapping, Sequence

from experiments.methods import run as gate

TIMES = 4  # as many steps


def main(argv: Sequence[str]) -> int:
  """Run what is missing, then write.

  Args:
    argv: the command line.

  Returns:
    The process's exit status.
  """
  given = gate.options(__doc__).parse_args(argv)
  before = gate.read(gate.HERE)
  results = {}
  for name, skills in missed(before).items():
    settings = (
      f"MIXTURE_OR_TASK_NAME={skills!r}",
      f"TRAIN_STEPS_RELATIVE={TIMES * before[name]['steps']}",
    )
    found = gate.run(given, name, "longer", settings)
    if found is None:
      print("Stopped. The same command continues it.")
      return 1
    (title,) = found.trained
    results[name] = {
      "steps": found.steps[title],
      "scores": {task: found.of(title, task) for task in found.tasks},
      "worst_before": {task: before[name]["worst"][task] for task in skills},
      "steps_before": before[name]["steps"],
    }
    write(results, pathlib.Path(given.output_dir))
  print(table(results))
  return 0


def missed(results: Mapping[str, dict]) -> dict[str, tuple[str, ...]]:
  """List the skills that methods do not recover.

  Args:
    results: of the gate.

  Returns:
    Method -> its skills; methods that recover all are left out.
  """
  lost = {
    name: tuple(
      task
      for task, score in found["worst"].items()
      if score < gate.ENOUGH
      or score - found["frozen_model"][task] < gate.LEAST_GAIN
    )
    for name, found in results.items()
  }
  return {name: tasks for name, tasks in lost.items() if tasks}


def write(results: Mapping[str, dict], folder: pathlib.Path) -> None:
  """Write the numbers and the table."""
  numbers, page = folder / "longer.json", folder / "longer.md"
  gate.save(results, numbers, table(results), page)


def table(results: Mapping[str, dict]) -> str:
  """Write a line per method and skill."""
  lines = [
    "| method | skill | steps | worst seed | best seed | steps before "
    "| worst seed before |",
    "|---|---|---:|---:|---:|---:|---:|",
  ]
  for name, found in results.items():
    for task, scores in found["scores"].items():
      cells = [
        name,
        task.removeprefix("skill_"),
        f"{found['steps']:,}",
        f"{min(scores):.1f}",
        f"{max(scores):.1f}",
        f"{found['steps_before']:,}",
        f"{found['worst_before'][task]:.1f}",
      ]
      lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
