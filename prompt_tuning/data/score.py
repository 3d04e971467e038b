"""The SuperGLUE and GLUE scores of one model, from its tasks' metrics."""

import math
import statistics
from collections.abc import Mapping

from prompt_tuning.data import spec

# Group -> its (data set, metric) parts. Parts of a group are averaged first.
# DPR, the diagnostics and WNLI do not count.
GROUPS: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {
  "super_glue": {
    "BoolQ": (("boolq", "accuracy"),),
    "CB": (("cb", "mean_3class_f1"), ("cb", "accuracy")),
    "COPA": (("copa", "accuracy"),),
    "MultiRC": (("multirc", "f1"), ("multirc", "exact_match")),
    "ReCoRD": (("record", "f1"), ("record", "em")),
    "RTE": (("rte", "accuracy"),),
    "WiC": (("wic", "accuracy"),),
    "WSC": (("wsc", "accuracy"),),
  },
  "glue": {
    "CoLA": (("cola", "matthews_corrcoef"),),
    "SST-2": (("sst2", "accuracy"),),
    "MRPC": (("mrpc", "f1"), ("mrpc", "accuracy")),
    "STS-B": (("stsb", "pearson_corrcoef"), ("stsb", "spearman_corrcoef")),
    "QQP": (("qqp", "f1"), ("qqp", "accuracy")),
    "MNLI": (("mnli_matched", "accuracy"), ("mnli_mismatched", "accuracy")),
    "QNLI": (("qnli", "accuracy"),),
    "RTE": (("rte", "accuracy"),),
  },
}


def aggregate(
  results: Mapping[str, Mapping[str, float]], benchmark: str = "super_glue"
) -> float:
  """Average a benchmark as published: within a group first, then over groups.

  Results are used as given. The caller chooses, and should report, whether all
  are of one step or each is of its task's best step.

  Args:
    results: task name -> metrics in percent, as `TaskSpec.evaluate` gives them.
      Any variant of a task's name will do (`taskless_`, `_examples`, k-shot);
      tasks of other benchmarks are ignored.
    benchmark: `super_glue` or `glue`.

  Returns:
    The mean over groups, in percent.

  Raises:
    ValueError: a part is missing, is not finite, or is given by two variants of
      one task; an unknown benchmark or task name.

  Source: section 4 of the paper; `compute_avg_glue` of the T5 library.
  """
  if benchmark not in GROUPS:
    raise ValueError(
      f"Unknown benchmark {benchmark!r}; known: {', '.join(GROUPS)}."
    )
  metrics = _by_dataset(results, benchmark)
  scores = []
  missing = []
  for group, members in GROUPS[benchmark].items():
    values = []
    for dataset, metric in members:
      value = metrics.get(dataset, {}).get(metric)
      if value is None:
        missing.append(f"{group}: {metric} of {benchmark}_{dataset}")
      elif not math.isfinite(value):
        missing.append(f"{group}: {metric} of {dataset} is {value}")
      else:
        values.append(value)
    scores.append(values)
  if missing:
    raise ValueError(
      f"No {benchmark} score: {len(missing)} of its parts are missing:\n  "
      + "\n  ".join(missing)
    )
  return statistics.fmean(map(statistics.fmean, scores))


def _by_dataset(
  results: Mapping[str, Mapping[str, float]], benchmark: str
) -> dict[str, Mapping[str, float]]:
  by_dataset: dict[str, Mapping[str, float]] = {}
  names: dict[str, str] = {}
  for name, metrics in results.items():
    task = spec.task(name)
    if task.benchmark != benchmark or not metrics:
      continue
    if task.dataset in names:
      raise ValueError(
        f"Two results for {task.dataset}: {names[task.dataset]!r} and "
        f"{name!r}; give one."
      )
    names[task.dataset] = name
    by_dataset[task.dataset] = metrics
  return by_dataset
