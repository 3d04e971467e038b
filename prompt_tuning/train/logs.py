"""Metrics on disk: one JSONL file, and TensorBoard under T5X's tag names."""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from prompt_tuning.core import files
from prompt_tuning.core.types import PyTree

FILE = "metrics.jsonl"


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
    self._path = pathlib.Path(folder) / FILE
    files.make_folder(self._path.parent)
    self._writers: list[Any] = []
    if tensorboard:
      # Not at the top: it imports torch where torch is installed.
      from tensorboardX import SummaryWriter

      root = self._path.parent / "tensorboard"
      self._writers = [
        SummaryWriter(str(root / f"run_{k}")) for k in range(num_runs)
      ]

  def forget_after(self, step: int) -> None:
    """Drop the lines of steps that a resumed run will do again."""
    if not self._path.exists():
      return
    lines = []
    for line in self._path.read_text(encoding="utf-8").splitlines():
      try:
        entry = json.loads(line)
      except ValueError:
        continue  # the last line of a killed process
      if entry["step"] <= step:
        lines.append(line)
    files.write_text(self._path, "".join(f"{line}\n" for line in lines))

  def write(
    self, step: int, run: int, metrics: Mapping[str, float], prefix: str
  ) -> None:
    """Append the metrics of one run.

    Args:
      step: as T5X counts, the restored model's steps included.
      run: number of the run.
      metrics: tag without prefix -> number; what is not finite becomes null.
      prefix: such as `train` or `inference_eval/<task>`.
    """
    tagged = {f"{prefix}/{tag}": float(v) for tag, v in metrics.items()}
    entry: dict[str, float | None] = {"step": step, "run": run}
    entry |= {t: v if math.isfinite(v) else None for t, v in tagged.items()}
    files.append(self._path, f"{json.dumps(entry)}\n".encode())
    if self._writers:
      for tag, value in tagged.items():
        self._writers[run].add_scalar(tag, value, step)

  def close(self) -> None:
    """Flush the event files."""
    for writer in self._writers:
      writer.close()


def read(folder: str | os.PathLike[str]) -> list[dict[str, PyTree]]:
  """Read the lines that `MetricsLog` wrote, in order."""
  path = pathlib.Path(folder) / FILE
  if not path.exists():
    return []
  lines = path.read_text(encoding="utf-8").splitlines()
  return [json.loads(line) for line in lines if line.endswith("}")]
