"""The task that every node of a Slurm job runs."""

import contextlib
import os
import signal
import subprocess
from types import FrameType
from typing import Any

_SAVED = 128 + signal.SIGTERM  # status of a program that SIGTERM stopped


class Task:
  """Runs a script that continues after preemption and the time limit.

  submitit asks Slurm for SIGUSR2 some time before the job ends. Its handler
  in task 0 queues the job again if the task has a `checkpoint` method. The
  programs save at SIGTERM, and continue when they start again.

  Source: submitit's pages on checkpointing and on `SlurmExecutor`.
  """

  def __init__(self, script: str) -> None:
    self.script = script
    self._child: subprocess.Popen | None = None
    self._is_told = False

  def __getstate__(self) -> dict[str, Any]:
    return {"script": self.script, "_child": None, "_is_told": False}

  def __call__(self) -> None:
    """Run the script.

    Raises:
      ChildProcessError: it failed.
    """
    self._forward()
    self._child = subprocess.Popen(["bash", "-c", self.script])
    status = self._child.wait()
    if status and not (self._is_told and status == _SAVED):
      raise ChildProcessError(f"The program ended with status {status}.")

  def checkpoint(self) -> Any:
    """Make the program save, wait for it, then queue the same task."""
    import submitit

    if self._child is not None:
      # Do not use Popen.wait: when this handler runs, Popen may already hold
      # its lock.
      with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT)
    return submitit.helpers.DelayedSubmission(self)

  def _forward(self) -> None:
    """Let every task save: submitit's own handler acts only in task 0."""
    previous = signal.getsignal(signal.SIGUSR2)

    def handle(number: int, frame: FrameType | None) -> None:
      self._stop()
      if callable(previous):
        previous(number, frame)

    signal.signal(signal.SIGUSR2, handle)

  def _stop(self) -> None:
    if self._child is not None:
      self._is_told = True
      with contextlib.suppress(ProcessLookupError):
        os.kill(self._child.pid, signal.SIGTERM)
