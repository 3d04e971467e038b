"""The content of an output's lines: T5X's three modes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning.core import tree
from prompt_tuning.data.spec import INPUTS, TARGETS
from prompt_tuning.infer import rank
from prompt_tuning.infer.inputs import Inputs, Rows
from prompt_tuning.infer.outputs import Compute, Example
from prompt_tuning.infer.predict import Predictor

MODES = ("predict", "score", "predict_with_aux")


def compute(
  mode: str,
  predictor: Predictor,
  run_of: Callable[[Example], int] = lambda example: 0,
  rows: Rows | None = None,
  **decoding: Any,
) -> Compute:
  """Build the function that computes an output's lines.

  Args:
    mode: `predict` gives `prediction`; `predict_with_aux` also
      `aux: {"scores": ...}`, its log-likelihood; `score` gives `score`, the
      log-likelihood of `targets_pretokenized`.
    predictor: the model and its runs.
    run_of: returns the run of an example.
    rows: the inputs as tokens, by the indices of examples, if their texts are
      not enough; None encodes the texts.
    **decoding: see `Predictor.predict`.

  Returns:
    A function for `outputs.Output.write`. Its result depends on an example's
    index and not on where a job was continued.

  Raises:
    ValueError: an unknown mode.
  """
  if mode not in MODES:
    raise ValueError(
      f"Unknown mode {mode!r}.{tree.nearest(mode, MODES)} Expected one of "
      f"{', '.join(MODES)}."
    )

  def lines(
    numbers: Sequence[int], examples: Sequence[Example]
  ) -> Sequence[Mapping[str, Any]]:
    run_ids = [run_of(example) for example in examples]
    if rows is None:
      texts = [str(example[INPUTS]) for example in examples]
      asked = predictor.encode(texts, run_ids)
    else:
      asked = Inputs([rows[n] for n in numbers], np.asarray(run_ids, np.int32))
    if mode == "score":
      targets = [_target(n, e) for n, e in zip(numbers, examples, strict=True)]
      return [{"score": s} for s in rank.score(predictor, asked, targets)]
    predicted = predictor.predict(asked, numbers=numbers, **decoding)
    if mode == "predict":
      return [{"prediction": p.text} for p in predicted]
    return [
      {"prediction": p.text, "aux": {"scores": p.score}} for p in predicted
    ]

  return lines


def _target(number: int, example: Example) -> str:
  if TARGETS not in example:
    raise ValueError(
      f"Input {number} has no targets to score; it has {sorted(example)}."
    )
  return str(example[TARGETS])
