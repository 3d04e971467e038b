"""Evaluation results as files in T5X's form.

  <folder>/<task>-metrics.jsonl     per step {"step": ..., metric: value, ...}
  <folder>/<task>-<step:06d>.jsonl  per example {"input": {...}, "target": ...,
                                    "prediction": ..., ...}
  <folder>/<task>-<step:06d>.COMPLETED  how they were made, and of what, where
                                    no bundle beside them says it

T5X's folder is `FOLDER`; runs of a bank each need a folder of their own.
Source: seqio's JSONLogger.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from prompt_tuning.core import files
from prompt_tuning.data import spec
from prompt_tuning.infer.evaluate import Result
from prompt_tuning.infer.outputs import InputsDigest

FOLDER = "inference_eval"


def write(
  folder: str | os.PathLike[str],
  step: int,
  result: Result,
  limit: int | None = None,
  settings: Mapping[str, Any] | None = None,
) -> None:
  """Write the metrics and the predictions of one evaluation.

  An existing step is replaced, so that a run that was killed and continued
  leaves the same files as an uninterrupted run.

  Args:
    folder: the folder, created if missing.
    step: training step.
    result: the result to write.
    limit: maximum number of examples to write; None for all.
    settings: JSON values that decide the answers; written with the digest of
      the inputs. None writes neither.
  """
  folder = files.path(folder)
  files.make_folder(folder)
  name = result.job.dataset.task.name
  line = json.dumps({"step": step, **result.metrics})
  metrics = files.below(folder, f"{name}-metrics.jsonl", "A task")
  _replace_step(metrics, step, line)
  lines = _example_lines(result, limit)
  answers = files.below(folder, f"{name}-{step:06d}.jsonl", "A task")
  files.write_text(answers, "".join(lines))
  if settings is not None:
    inputs = InputsDigest(result.job.dataset.examples).value
    text = json.dumps({**settings, "inputs": inputs}, indent=2, sort_keys=True)
    files.write_text(answers.with_suffix(".COMPLETED"), text + "\n")


def _replace_step(path: pathlib.Path, step: int, line: str) -> None:
  lines = []
  if path.is_file():
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    lines = text.removesuffix("\n").split("\n")
  same = [i for i, old in enumerate(lines) if _step_of(old) == step]
  if same:
    lines[same[0]] = line
  else:
    lines.append(line)
  text = "".join(f"{line}\n" for line in lines)
  files.write_bytes(path, text.encode("utf-8", "surrogateescape"))


def _step_of(line: str) -> Any:
  """Read a line's step; None for a line of another program."""
  try:
    return json.loads(line)["step"]
  except (ValueError, LookupError, TypeError, RecursionError):
    return None


def _shown(value: Any) -> Any:
  """Convert values that a user's postprocessor may return, but JSON lacks."""
  return value.tolist() if hasattr(value, "tolist") else str(value)


def _example_lines(result: Result, limit: int | None) -> list[str]:
  task = result.job.dataset.task
  lines = []
  for number, example in enumerate(result.job.dataset.examples[:limit]):
    text = example[spec.TARGETS]
    record = {
      "input": dict(example),
      "target": task.postprocess(text, example=example, is_target=True),
      **{name: values[number] for name, values in result.outputs.items()},
    }
    lines.append(json.dumps(record, default=_shown) + "\n")
  return lines
