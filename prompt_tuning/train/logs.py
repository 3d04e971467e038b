"""Metrics on disk: one JSONL file, and TensorBoard under T5X's tag names."""

import json
import logging
import math
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from prompt_tuning.core import files, growing
from prompt_tuning.core.types import PyTree

FILE = "metrics.jsonl"
_PUT_S = 30.0  # seconds between two uploads in the background

logger = logging.getLogger(__name__)


class MetricsLog:
  """Appends metrics of every run; a resumed run repeats no step.

  Each line of `metrics.jsonl` is {"step", "run", "<tag>": number, ...}.
  TensorBoard has one folder per run, so that its charts overlay them.
  """

  def __init__(
    self, folder: str | os.PathLike[str], num_runs: int, tensorboard: bool
  ):
    """Open the log.

    Args:
      folder: where the files are.
      num_runs: K.
      tensorboard: whether to write event files too.
    """
    self._path = files.path(folder) / FILE
    files.make_folder(self._path.parent)
    self._lines = growing.Appended(self._path)
    self._put_at = time.monotonic()
    self._writers: list[Any] = []
    if tensorboard:
      writer = _summary_writer()
      self._events = growing.Mirrored(self._path.parent / "tensorboard")
      root = self._events.local
      self._writers = [writer(str(root / f"run_{k}")) for k in range(num_runs)]

  def forget_after(self, step: int) -> None:
    """Drop the lines of steps that a resumed run will repeat."""
    if not self._path.exists():
      return
    lines = [
      line for line, entry in _entries(self._path) if entry["step"] <= step
    ]
    files.write_bytes(self._path, b"".join(line + b"\n" for line in lines))

  def write(
    self, step: int, run: int, metrics: Mapping[str, float], prefix: str
  ) -> None:
    """Append the metrics of one run.

    Args:
      step: step as T5X counts, with the steps of the restored model.
      run: number of the run.
      metrics: tag without prefix -> number; numbers that are not finite become
        null.
      prefix: such as `train` or `inference_eval/<task>`.
    """
    tagged = {f"{prefix}/{tag}": float(v) for tag, v in metrics.items()}
    entry: dict[str, float | None] = {"step": step, "run": run}
    entry |= {t: v if math.isfinite(v) else None for t, v in tagged.items()}
    self._lines.append(f"{json.dumps(entry)}\n".encode())
    if self._writers:
      for tag, value in tagged.items():
        self._writers[run].add_scalar(tag, value, step)

  def put(self, at_once: bool) -> None:
    """Upload what was written, if the log is in a bucket.

    Args:
      at_once: True uploads now, as before a bundle; False may wait.
    """
    if at_once or time.monotonic() > self._put_at + _PUT_S:
      self._lines.put()
      if self._writers:
        self._events.put()
      self._put_at = time.monotonic()

  def close(self) -> None:
    """Flush the event files."""
    self._lines.put()
    for writer in self._writers:
      writer.close()
    if self._writers:
      self._events.close()


def _summary_writer() -> Any:
  """Import the writer of event files without torch.

  It needs no torch for numbers. If torch is installed, importing it would take
  two seconds.
  """
  if "torch" in sys.modules:
    from tensorboardX import SummaryWriter
  else:
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
      from tensorboardX import SummaryWriter
    finally:
      del sys.modules["torch"]
  return SummaryWriter


def read(folder: str | os.PathLike[str]) -> list[dict[str, PyTree]]:
  """Read the lines that `MetricsLog` wrote, in order."""
  path = files.path(folder) / FILE
  return [entry for _, entry in _entries(path)] if path.exists() else []


def _entries(path: pathlib.Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
  """Read lines with their values; skip lines that are not a log's.

  One example is the last line of a killed process. Training does not depend on
  the log, so no line stops a training.
  """
  passed_over = []
  for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
    try:
      entry = json.loads(line)
    except (ValueError, RecursionError):
      entry = None
    if _is_entry(entry):
      yield line, entry
    elif line:
      passed_over.append(number)
  if passed_over:
    logger.warning(
      "%s: skipped %d lines that are not lines of a log; the first is line %d.",
      *(path, len(passed_over), passed_over[0]),
    )


def _is_entry(value: Any) -> bool:
  """Whether a value is what `write` writes: a step, a run, numbers."""
  if not isinstance(value, dict):
    return False
  whole = (value.get("step"), value.get("run"))
  numbers = (v for v in value.values() if v is not None)
  return all(type(v) is int for v in whole) and all(
    type(v) in (int, float) for v in numbers
  )
