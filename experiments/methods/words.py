"""What the frozen model does when it is asked in words, with nothing trained.

  python -m experiments.methods.words

Scores the model on the skills of `run`, on the same examples: as it is, with an
instruction in front (prompt design), and behind answered examples (few-shot in
context), with five seeds. Writes `words.json` and `words.md`, whose rows stand
beside those of `table.md`. No gate: a model that never saw demonstrations owes
none.
"""

import argparse
import json
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence

from experiments.methods.run import HERE, SKILLS
from prompt_tuning.data import skills
from prompt_tuning.data.catalog import skills as tasks
from prompt_tuning.infer import reports
from prompt_tuning.launch import main as commands

SHOTS = (1, 4)
SEEDS = (0, 1, 2, 3, 4)
# Row -> skill -> one score per seed.
Scores = dict[str, dict[str, list[float]]]


def main(argv: Sequence[str]) -> int:
  """Score, then write.

  Args:
    argv: the command line.

  Returns:
    The process's exit status.
  """
  parser = argparse.ArgumentParser(description=__doc__)
  add = parser.add_argument
  add(
    "--skills", nargs="+", default=list(SKILLS), choices=sorted(skills.SKILLS)
  )
  add("--seeds", nargs="+", type=int, default=list(SEEDS))
  add("--examples", type=int, default=None, help="of each skill; all of them")
  add("--work_dir", default="runs/words")
  add("--output_dir", default=str(HERE))
  given = parser.parse_args(argv)
  names = {skill: f"skill_{skill}" for skill in given.skills}
  designed = {skill: tasks.instructed(name) for skill, name in names.items()}
  scores: Scores = {"frozen model": {s: [] for s in names}}
  _score(given, "frozen model", names, (), scores)
  _score(given, "prompt design", designed, (), scores)
  for shots in SHOTS:
    for seed in given.seeds:
      context = (
        "--gin_file=contexts/few_shot.gin",
        f"--gin.SHOTS={shots}",
        f"--gin.CONTEXT_SEED={seed}",
      )
      _score(given, f"{shots}-shot in context", names, context, scores)
  output = pathlib.Path(given.output_dir)
  text = json.dumps(scores, indent=1) + "\n"
  (output / "words.json").write_text(text, encoding="utf-8")
  (output / "words.md").write_text(table(scores), encoding="utf-8")
  print(table(scores))
  return 0


def _score(
  given: argparse.Namespace,
  row: str,
  names: Mapping[str, str],
  context: Sequence[str],
  scores: Scores,
) -> None:
  """Evaluate the model itself on all skills, and note a score of each."""
  folder = pathlib.Path(given.work_dir, row.replace(" ", "_"))
  argv = [
    "--gin_file=models/embedded.gin",
    "--gin_file=runs/prompt_eval.gin",
    "--gin.PROMPT_FILE=None",
    *context,
    "--gin.CHECKPOINT_PATH='embedded:ladder_1'",
    f"--gin.MIXTURE_OR_TASK_NAME={tuple(names.values())}",
    "--gin.EVAL_SPLIT='test'",
    f"--gin.EVALUATOR_NUM_EXAMPLES={given.examples}",
    f"--gin.EVAL_OUTPUT_DIR={str(folder)!r}",
  ]
  if commands.main(["eval", *argv]):
    raise RuntimeError(f"{row} could not be scored.")
  for skill, name in names.items():
    path = folder / reports.FOLDER / f"{name}-metrics.jsonl"
    last = path.read_text(encoding="utf-8").splitlines()[-1]
    of_row = scores.setdefault(row, {})
    of_row.setdefault(skill, []).append(json.loads(last)["accuracy"])


def table(scores: Scores) -> str:
  """Write a line per row: the worst seed of each skill, and the mean."""
  heads = ["", *next(iter(scores.values())), "mean of all seeds"]
  lines = [
    f"| {' | '.join(heads)} |",
    "|---" + "|---:" * (len(heads) - 1) + "|",
  ]
  for row, of_row in scores.items():
    mean = statistics.fmean(map(statistics.fmean, of_row.values()))
    cells = [row, *(f"{min(values):.1f}" for values in of_row.values())]
    lines.append(f"| {' | '.join([*cells, f'{mean:.1f}'])} |")
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
