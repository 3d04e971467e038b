"""Sample predictions as text, for the `_examples` tasks' logs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning.data import spec


def sample_texts(
  task: spec.TaskSpec,
  predictions: Sequence[str],
  examples: Sequence[Mapping[str, Any]],
  num_samples: int = 8,
  seed: int = 0,
) -> dict[str, str]:
  """Show some predictions, and some of the wrong ones, with their inputs.

  Args:
    task: judges which predictions are wrong, by its postprocessor.
    predictions: decoded model outputs, one per example.
    examples: with `inputs_pretokenized` and `targets_pretokenized`.
    num_samples: how many of either kind; fewer if there are fewer.
    seed: of the draw.

  Returns:
    Texts to log: `samples` and `wrong_samples`.
  """
  rows = range(len(examples))
  wrong = [r for r in rows if not _right(task, predictions[r], examples[r])]
  generator = np.random.default_rng(seed)

  def show(population: Sequence[int]) -> str:
    size = min(num_samples, len(population))
    chosen = generator.choice(len(population), size, replace=False)
    return "\n\n".join(
      f"input: {examples[r][spec.INPUTS]}\n"
      f"target: {examples[r][spec.TARGETS]}\n"
      f"prediction: {predictions[r]}"
      for r in (population[i] for i in sorted(chosen))
    )

  return {"samples": show(rows), "wrong_samples": show(wrong)}


def _right(
  task: spec.TaskSpec, prediction: str, example: Mapping[str, Any]
) -> bool:
  target, output = (
    task.postprocess(text, example=example, is_target=is_target)
    for text, is_target in ((example[spec.TARGETS], True), (prediction, False))
  )
  if isinstance(target, Mapping):
    target, output = target["value"], output["value"]
  if isinstance(target, list):
    return output in target
  return bool(target == output)
