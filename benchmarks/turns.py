"""Sides in processes of their own that take turns."""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
# Steps at the start of a turn that do not count: a process that has waited is
# slow at first, and slower the more fresh memory its steps take.
WARM = 1


class Worker:
  """A side in its process, see `benchmarks.sides.worker`.

  Args:
    side: a module of `benchmarks.sides`.
    folder: made by `making.write`.
    compiled: folder of compiled programs; None keeps none.
    **options: of the side, see `worker`.

  Attributes:
    start_s: from the start of the process until it can take a step.
    device: what it computes on.
  """

  def __init__(
    self,
    side: str,
    folder: pathlib.Path,
    compiled: pathlib.Path | None = None,
    **options: Any,
  ):
    environment = dict(os.environ, PYTHONWARNINGS="ignore")
    environment["JAX_ENABLE_COMPILATION_CACHE"] = str(int(bool(compiled)))
    if compiled:
      environment["JAX_COMPILATION_CACHE_DIR"] = str(compiled)
    command = [sys.executable, "-m", "benchmarks.sides.worker"]
    command += [side, str(folder), json.dumps(options)]
    self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed on exit
    start = time.perf_counter()
    self._process = subprocess.Popen(
      command,
      cwd=ROOT,
      env=environment,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._errors,
      text=True,
    )
    self.device: str = self._read()["device"]
    self.start_s = time.perf_counter() - start

  def ask(self, **asked: Any) -> dict[str, Any]:
    """Have it do something, see `worker.answer`."""
    assert self._process.stdin is not None
    self._process.stdin.write(json.dumps(asked) + "\n")
    self._process.stdin.flush()
    return self._read()

  def _read(self) -> dict[str, Any]:
    assert self._process.stdout is not None
    line = self._process.stdout.readline()
    if not line:
      self._errors.seek(0)
      said = self._errors.read()[-2_000:]
      self.__exit__()
      raise RuntimeError(f"{self._process.args} ended:\n{said}")
    answer: dict[str, Any] = json.loads(line)
    return answer

  def __enter__(self) -> "Worker":
    return self

  def __exit__(self, *_: object) -> None:
    self._process.__exit__(None, None, None)  # closes its input, and waits
    self._errors.close()


def take_turns(
  workers: Mapping[str, Worker],
  asked: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, list[dict[str, Any]]]:
  """Let sides answer their requests in turn, the first of each, then the next.

  Args:
    workers: side -> its process.
    asked: side -> requests, as many for each.

  Returns:
    Side -> answers.
  """
  answers: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
  for requests in zip(*(asked[name] for name in workers), strict=True):
    for (name, worker), request in zip(workers.items(), requests, strict=True):
      answers[name].append(worker.ask(**request))
  return answers


def spread(seconds: Iterable[float]) -> dict[str, float]:
  """Describe times by median, least and most."""
  values = sorted(seconds)
  found = (statistics.median(values), values[0], values[-1])
  names = ("median", "least", "most")
  return {n: round(v, 4) for n, v in zip(names, found, strict=True)}
