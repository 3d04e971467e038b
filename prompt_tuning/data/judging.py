"""Whether a single prediction is right, by the metrics of its task.

A metric that counts right rows also works for one row. F1, Matthews and
correlations do not: then the postprocessed texts are compared.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prompt_tuning.data import spec

# Names of metrics that are a share of right rows; for one row, all or nothing.
_SHARES = frozenset(("accuracy", "em", "exact_match", "sequence_accuracy"))


def of_task(task: spec.TaskSpec) -> Callable[[str, Mapping[str, Any]], bool]:
  """Return the function that judges the predictions of a task.

  Args:
    task: the task; its postprocessor and metrics may be a user's, and may
      raise.

  Returns:
    (prediction, example) -> whether it is right; examples are those that
    `TaskSpec.evaluate` takes.
  """
  # Chosen with the first row, so that no other metric runs for every row.
  shares: list[spec.Metric] | None = None

  def is_right(prediction: str, example: Mapping[str, Any]) -> bool:
    nonlocal shares
    target = task.postprocess(
      example[spec.TARGETS], example=example, is_target=True
    )
    output = task.postprocess(prediction, example=example, is_target=False)
    if shares is None:
      shares = [m for m in task.metrics if _share(m, target, output)]
    found = [x for m in shares for x in _share(m, target, output)]
    return max(found) > 0 if found else _is_same(target, output)

  return is_right


def _share(metric: spec.Metric, target: Any, output: Any) -> Sequence[float]:
  """Compute a metric of one row, as a share of right rows."""
  try:
    values = metric([target], [output])
  except Exception:  # anybody's, which need not know what to say of one row
    return []
  return [float(x) for name, x in values.items() if name in _SHARES]


def _is_same(target: Any, output: Any) -> bool:
  """Compare postprocessed values; a list holds all acceptable values."""
  if isinstance(target, Mapping) and isinstance(output, Mapping):
    target, output = target.get("value"), output.get("value")
    if isinstance(target, list) and isinstance(output, list):
      return any(answer in target for answer in output)
  if isinstance(target, list) and not isinstance(output, list):
    return output in target
  return bool(target == output)
