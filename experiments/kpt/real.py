"""AG News with KPT's real words: zero-shot, and with a few examples.

  prompt-tuning data prepare --source ../shared/data/textcls --tfds_data_dir d
  python -m experiments.kpt.real --tfds_data_dir d

The embedded model, which never read news; so the scores say that everything
goes through, and how far words help a model this small. Of the 1,379 words
those of one piece, by OpenPrompt's four templates. Writes `ag_news.json` and
`ag_news.md`. What is done already, is not done again.
"""

import argparse
import json
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence

from experiments.kpt.run import HERE, SHOT_SEEDS
from prompt_tuning.checkpoints import bundle
from prompt_tuning.data import several_templates, templated
from prompt_tuning.infer import reports
from prompt_tuning.launch import main as commands

WORDS = ("manual", "knowledgeable")
FOLDER = "TextClassification/agnews"
CLASSES = "--gin_file=objectives/classes.gin"
CALIBRATED = (
  "--gin_file=objectives/calibrated.gin",
  "--gin.evaluation.Calibration.drop_rare=0.0",
  "--gin.evaluation.Calibration.least_relevance=None",
)
FIRST = "--gin.SCORER=@scorers.FirstPiece()"
HOW = "--gin.scorers.FirstPiece.aggregate="
SHOTS = 20


def main(argv: Sequence[str]) -> int:
  """Score and train, then write.

  Args:
    argv: the command line.

  Returns:
    The process's exit status.
  """
  parser = argparse.ArgumentParser(description=__doc__)
  add = parser.add_argument
  add("--tfds_data_dir", required=True)
  add("--verbalizers", default="../shared/data/verbalizers")
  add("--examples", type=int, default=1000, help="of the test split")
  add("--work_dir", default="runs/kpt_ag_news")
  add("--output_dir", default=str(HERE))
  given = parser.parse_args(argv)
  work = pathlib.Path(given.work_dir).absolute()
  names = {words: declare(given.verbalizers, words) for words in WORDS}
  found = {}
  for words, tasks in names.items():
    plain = (CLASSES, FIRST, f"{HOW}'log_mean'")
    for row, flags in (
      (words, plain),
      (f"{words}, calibrated", (*CALIBRATED, *plain[1:])),
    ):
      found[row] = evaluated(given, work / row.replace(", ", "_"), tasks, flags)
  for words, tasks in names.items():
    how = "learned" if words == "knowledgeable" else "log_mean"
    row = f"{words}, {SHOTS} of each class, model tuned"
    found[row] = tuned(given, work / f"{words}_{SHOTS}", tasks, how)
  out = pathlib.Path(given.output_dir)
  text = json.dumps(found, indent=1) + "\n"
  (out / "ag_news.json").write_text(text, encoding="utf-8")
  (out / "ag_news.md").write_text(table(found), encoding="utf-8")
  print(table(found))
  return 0


def declare(verbalizers: str, words: str) -> tuple[str, ...]:
  """Declare a task for every template; returns their names."""
  folder = pathlib.Path(verbalizers, FOLDER).absolute()
  return several_templates.declare(
    f"ag_news_{words}",
    "taskless_ag_news_v100",
    template_file=str(folder / "manual_template.txt"),
    template_numbers=(0, 1, 2, 3),  # the fifth is of another vocabulary
    label_words_file=str(folder / f"{words}_verbalizer.txt"),
    fields={"text_a": "title", "text_b": "description"},
    target_format="plain",
    several_pieces=templated.DROP if words == "knowledgeable" else "keep",
  )


def evaluated(
  given: argparse.Namespace,
  folder: pathlib.Path,
  tasks: Sequence[str],
  flags: Sequence[str],
) -> list[float]:
  """Evaluate the model itself, unless that is done; a score per template."""
  if not scores(folder):
    argv = [
      "--gin_file=models/embedded.gin",
      "--gin_file=runs/prompt_eval.gin",
      *flags,
      "--gin.PROMPT_FILE=None",
      "--gin.CHECKPOINT_PATH='embedded:ladder_1'",
      f"--gin.MIXTURE_OR_TASK_NAME={tuple(tasks)}",
      "--gin.TASK_FEATURE_LENGTHS={'inputs': 128, 'targets': 16}",
      "--gin.EVAL_SPLIT='test'",
      f"--gin.EVALUATOR_NUM_EXAMPLES={given.examples}",
      f"--gin.EVAL_OUTPUT_DIR={str(folder)!r}",
      f"--tfds_data_dir={given.tfds_data_dir}",
    ]
    if commands.main(["eval", *argv]):
      raise RuntimeError(f"{folder} could not be scored.")
  return scores(folder)


def tuned(
  given: argparse.Namespace,
  folder: pathlib.Path,
  tasks: Sequence[str],
  how: str,
) -> list[float]:
  """Tune the model on a few examples, five times, unless that is done."""
  names = tuple(f"{tasks[0]}_k{SHOTS}_seed{seed}" for seed in SHOT_SEEDS)
  if not bundle.steps(folder / bundle.BEST / "run_0"):
    weights = ("methods/word_weights", "optimizers/word_weights")
    method = [f"--gin_file={name}.gin" for name in weights]
    if how != "learned":
      method = ["--gin_file=runs/model_tuning.gin"]
    argv = [
      "--gin_file=models/embedded.gin",
      "--gin_file=runs/finetune.gin",
      *method,
      "--gin_file=objectives/classes.gin",
      "--gin_file=meshes/single.gin",
      FIRST,
      f"{HOW}{how!r}",
      f"--gin.MODEL_DIR={str(folder)!r}",
      f"--gin.MIXTURE_OR_TASK_NAME={names}",
      "--gin.TASK_FEATURE_LENGTHS={'inputs': 128, 'targets': 16}",
      "--gin.EVAL_FEATURE_LENGTHS={'inputs': 128, 'targets': 16}",
      "--gin.BATCH_SIZE=8",
      "--gin.DROPOUT_RATE=0.0",
      "--gin.TRAIN_STEPS=None",
      "--gin.TRAIN_STEPS_RELATIVE=50",
      "--gin.EVAL_PERIOD=0",
      "--gin.EVAL_STEPS=0",
      "--gin.EVAL_SPLIT='test'",
      f"--gin.EVALUATOR_NUM_EXAMPLES={given.examples}",
      f"--tfds_data_dir={given.tfds_data_dir}",
    ]
    if commands.main(["train", *argv]):
      raise RuntimeError(f"{folder} could not be trained.")
  return scores(folder)


def scores(folder: pathlib.Path) -> list[float]:
  """Read the last accuracy of every task; none where nothing is scored."""
  files = sorted((folder / reports.FOLDER).glob("**/*-metrics.jsonl"))
  last = [json.loads(file.read_text().splitlines()[-1]) for file in files]
  return [line["accuracy"] for line in last]


def table(found: Mapping[str, Sequence[float]]) -> str:
  """Write mean and deviation of every row: over templates, or over shots."""
  lines = ["| | accuracy | sd | of |", "|---|---:|---:|---:|"]
  for row, values in found.items():
    spread = (statistics.fmean(values), statistics.stdev(values))
    cells = [row, *(f"{value:.1f}" for value in spread), str(len(values))]
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
