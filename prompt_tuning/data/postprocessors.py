"""Conversion of decoded text to values for metrics, without TensorFlow.

All follow seqio's convention: `(text, example=..., is_target=...)`, called once
for the target and once for the prediction. The example's strings may be bytes
(from tf.data) or str (from the cache).
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

# Words that do not identify a referent.
_DETERMINERS = re.compile(
  "a|an|few|her|his|each|every|many|much|my|our|some|that|the|their|these|this"
  "|those|which|whose|your"
)

ILLEGAL = -1


def to_text(value: Any) -> str:
  """Decode UTF-8 bytes; return str unchanged."""
  return value.decode("utf-8") if isinstance(value, bytes) else str(value)


@dataclasses.dataclass(frozen=True)
class LabelId:
  """The index of a label word among the task's words, or -1 for other text.

  Attributes:
    label_words: words in TFDS order.
    rename: (from, to) text that is replaced in predictions first, for label
      words of the task on which a zero-shot prompt was trained.
  """

  label_words: tuple[str, ...]
  rename: tuple[str, str] | None = None

  def __call__(self, text: str, is_target: bool = False, **unused: Any) -> int:
    """Return the class id of `text`, which must match a word exactly."""
    del unused
    text = to_text(text)
    if self.rename and not is_target:
      text = text.replace(*self.rename)
    if text not in self.label_words:
      return ILLEGAL
    return self.label_words.index(text)


def to_float(text: str, is_target: bool = False, **unused: Any) -> float:
  """Read a score, such as STS-B's.

  Args:
    text: a decimal number.
    is_target: whether it is the gold score.
    **unused: seqio's other arguments.

  Returns:
    The score. If the text is no finite number, -1.0 for a prediction, as in the
    T5 library (which lets "nan" and "inf" through), NaN for a target, which
    `TaskSpec.evaluate` refuses.
  """
  del unused
  try:
    score = float(to_text(text))
  except ValueError:
    score = math.nan
  if math.isfinite(score):
    return score
  return math.nan if is_target else float(ILLEGAL)


def multirc(
  text: str,
  example: Mapping[str, Any] | None = None,
  is_target: bool = False,
) -> dict[str, Any]:
  """Return the class id, and for a target also its question as group.

  Source: T5's `multirc` groups by the question number alone. The paragraph is
  added here; in the official files, where question numbers run on, the groups
  are the same.
  """
  result: dict[str, Any] = {"value": LabelId(("False", "True"))(text)}
  if is_target and example is not None:
    result["group"] = (
      int(example["idx/paragraph"]),
      int(example["idx/question"]),
    )
  return result


def record(
  text: str,
  example: Mapping[str, Any] | None = None,
  is_target: bool = False,
) -> dict[str, Any]:
  """Return the answer; for a target, all answers and its query as group."""
  if not is_target or example is None:
    return {"value": to_text(text)}
  return {
    "value": [to_text(answer) for answer in example["answers"]],
    "group": (int(example["idx/passage"]), int(example["idx/query"])),
  }


def qa(
  text: str,
  example: Mapping[str, Any] | None = None,
  is_target: bool = False,
) -> Any:
  """Return the answer; for a target, the list of acceptable answers."""
  if not is_target or example is None:
    return to_text(text)
  return [to_text(answer) for answer in example["answers"]]


def relations(
  text: str,
  example: Mapping[str, Any] | None = None,
  is_target: bool = False,
) -> dict[str, Any]:
  """Return the predicted relation; for a target, all right relations.

  A target has its pair of arguments as group, and the relations that can be
  judged; see `metrics.relation.conversational_f1`.
  """
  if not is_target or example is None:
    return {"value": [to_text(text)]}
  return {
    "value": [to_text(name) for name in example["relations"]],
    "group": to_text(example["pair"]),
    "evaluable": [to_text(name) for name in example["evaluable"]],
    "seen": bool(example["arguments_seen"]),
  }


def wsc(text: str, example: Mapping[str, Any], is_target: bool = False) -> int:
  """Judge whether the prediction names the candidate referent.

  Args:
    text: the model's answer, the referent of the pronoun.
    example: its `targets_pretokenized` is the candidate referent, its `label`
      whether that is the right one.
    is_target: return the label.

  Returns:
    1 if the candidate is named, 0 if not, -1 for an empty prediction, which is
    wrong for any label.

  Source: `wsc_simple` of the T5 library's postprocessors.
  """
  if is_target:
    return int(example["label"])
  predicted = _without_determiners(text)
  if not predicted:
    return ILLEGAL
  referent = _without_determiners(example["targets_pretokenized"])
  # "Bob" is not "Bob's hat", although its words are contained.
  if ("'" in predicted) != ("'" in referent):
    return 0
  words, others = set(predicted.split(" ")), set(referent.split(" "))
  return int(words <= others or others <= words)


def _without_determiners(text: Any) -> str:
  words = to_text(text).strip().lower().split(" ")
  return " ".join(word for word in words if not _DETERMINERS.fullmatch(word))
