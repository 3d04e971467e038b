"""Score against pre-training: what the sweep of figure 3c found.

  prompt-tuning sweep --gin_file=experiments/figure3c_pretraining/ladder.gin
  python -m experiments.figure3c_pretraining.run

Takes `--sweep` and `--output_dir` as `experiments.collect` does. The paths of
checkpoints become two axes, the model and its pre-training.
"""

import re
import sys
from collections.abc import Sequence

from experiments import collect
from prompt_tuning.jobs.sweep_report import Point

MODEL, PRETRAINING = "model", "pre-training"
BEFORE, AFTER = "span corruption", "LM adaptation"
_CHECKPOINT = "INITIAL_CHECKPOINT_PATH"


def main(argv: Sequence[str]) -> int:
  """Collect, and make table and figure.

  Args:
    argv: the command line, after the experiment and its axis.

  Returns:
    The process's exit status.
  """
  return collect.main(["figure3c_pretraining", "--over", MODEL, *argv], named)


def named(point: Point) -> Point:
  """Give a cell the axes that the figure has.

  Args:
    point: of the sweep.

  Returns:
    The same, of a model and a pre-training.
  """
  values = dict(point.values)
  model, pretraining = model_of(values.pop(_CHECKPOINT))
  values = {MODEL: model, PRETRAINING: pretraining, **values}
  return point._replace(cell=",".join(values.values()), values=values)


def model_of(checkpoint: str) -> tuple[str, str]:
  """Name a model, and its pre-training.

  Args:
    checkpoint: `embedded:ladder_1`, the same with `_span_corruption`, or the
      path of a stage of `prompt-tuning pretrain`, as the name of a cell has it.

  Returns:
    The model, such as `tall_1`, and what it was pre-trained to do.

  Raises:
    ValueError: it is neither.
  """
  if checkpoint.startswith("embedded:"):
    name = checkpoint.removeprefix("embedded:")
    model = name.removesuffix("_span_corruption")
    return model, AFTER if name == model else BEFORE
  stage = re.fullmatch(
    r"(?:.*[/_])?(\w+_\d)[/_](span_corruption|lm_adaptation)[/_]checkpoint_\d+",
    checkpoint,
  )
  if stage is None:
    raise ValueError(
      f"{checkpoint} is no stage of a pre-training; expected a path that ends "
      "in MODEL/span_corruption/checkpoint_STEP or MODEL/lm_adaptation/..."
    )
  return stage[1], BEFORE if stage[2] == "span_corruption" else AFTER


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
