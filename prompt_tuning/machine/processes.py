"""Joining several processes, and naming the ones that did not come.

`jax.distributed.initialize` ends the process with a stack trace when a host is
missing. So the processes meet first, on the same address: every process tells
the coordinator that it is there, and when time is up, each of those that came
learns which did not.
"""

import dataclasses
import json
import logging
import socket
import time
from collections.abc import Iterable

logger = logging.getLogger(__name__)

_LONGEST_MESSAGE = 1 << 16
_RETRY_S = 0.2
_DEFAULT_TIMEOUT_S = 300  # JAX's own


@dataclasses.dataclass(frozen=True)
class Distributed:
  """How the processes of a multi-host job find each other.

  Attributes:
    coordinator_address: host:port of process 0; None: found by JAX (on TPU
      pods and under SLURM), or not needed.
    process_count: processes of the job.
    process_index: number of this one.
    initialization_timeout: seconds to wait for the others.
    requested: whether to initialise at all.
  """

  coordinator_address: str | None = None
  process_count: int | None = None
  process_index: int | None = None
  initialization_timeout: int = 300
  requested: bool = False


class MissingHostError(ConnectionError):
  """Not all processes met in time."""


def join(settings: Distributed) -> None:
  """Join the processes of a job, if it has several.

  Args:
    settings: how they find each other.

  Raises:
    MissingHostError: names the processes that did not come in time, or the
      coordinator that nobody answers at.
    ValueError: flags that contradict each other.
  """
  if not settings.requested:
    return
  import jax  # here, so that reading flags stays cheap

  timeout_s = settings.initialization_timeout or _DEFAULT_TIMEOUT_S
  if settings.coordinator_address is None:
    # A cluster that JAX knows (TPU pods, Slurm, ...): it finds the processes.
    jax.distributed.initialize(initialization_timeout=timeout_s)
    return
  count, index = settings.process_count, settings.process_index
  if count is None or index is None or not 0 <= index < count:
    raise ValueError(
      f"--coordinator_address needs --process_count and --process_index, from "
      f"0 to count - 1; got {count} and {index}."
    )
  if count > 1:
    meet(
      settings.coordinator_address,
      count,
      index,
      settings.initialization_timeout,
    )
  jax.distributed.initialize(
    settings.coordinator_address,
    count,
    index,
    initialization_timeout=timeout_s,
  )


def meet(address: str, count: int, index: int, timeout_s: float) -> None:
  """Wait until all processes are there.

  Args:
    address: `host:port` of process 0.
    count: how many there are.
    index: which one this is; 0 listens, the others call.
    timeout_s: how long to wait, in seconds.

  Raises:
    MissingHostError: see `join`.
  """
  host, _, port = address.rpartition(":")
  if not host or not port.isdecimal():
    raise ValueError(
      f"--coordinator_address is host:port of process 0; got {address!r}."
    )
  deadline = time.monotonic() + timeout_s
  if index == 0:
    missing = _listen(int(port), count, deadline)
  else:
    missing = _call(host, int(port), index, deadline, timeout_s)
  if missing:
    raise MissingHostError(
      f"{len(missing)} of {count} processes did not come within {timeout_s:g} "
      f"s: process {', '.join(map(str, missing))}. Start the command there "
      f"with --coordinator_address={address} --process_count={count} "
      f"--process_index={missing[0]}, check that it reaches that address, or "
      "raise --initialization_timeout."
    )


def _listen(port: int, count: int, deadline: float) -> list[int]:
  """Take the others' calls; returns who is missing, and tells them all."""
  came: dict[int, socket.socket] = {}
  with socket.create_server(("", port), backlog=count) as server:
    while len(came) < count - 1:
      left = deadline - time.monotonic()
      if left <= 0:
        break
      server.settimeout(left)
      try:
        caller, address = server.accept()
      except TimeoutError:
        break
      message = _receive(caller, min(left, 5))
      index = message.get("process_index") if message else None
      if isinstance(index, int) and 0 < index < count:
        logger.info("Process %d came from %s.", index, address[0])
        came[index] = caller
      else:
        caller.close()  # somebody else's connection
    missing = sorted(set(range(1, count)) - came.keys())
    _tell(came.values(), missing)
  return missing


def _tell(callers: Iterable[socket.socket], missing: list[int]) -> None:
  for caller in callers:
    with caller:
      caller.sendall(json.dumps({"missing": missing}).encode() + b"\n")


def _call(
  host: str, port: int, index: int, deadline: float, timeout_s: float
) -> list[int]:
  """Tell the coordinator that this process is there; returns who is missing."""
  problem: OSError | None = None
  while time.monotonic() < deadline:
    try:
      with socket.create_connection((host, port), timeout=_RETRY_S * 5) as line:
        line.sendall(json.dumps({"process_index": index}).encode() + b"\n")
        # The coordinator answers when its own time is up, at the latest.
        answer = _receive(line, deadline - time.monotonic() + timeout_s)
        if answer is not None and isinstance(answer.get("missing"), list):
          return answer["missing"]
    except OSError as error:
      problem = error
    time.sleep(_RETRY_S)
  raise MissingHostError(
    f"Process {index} found no coordinator (process 0) at {host}:{port} within "
    f"{timeout_s:g} s: {problem}. Start process 0 there, check "
    "--coordinator_address, or raise --initialization_timeout."
  )


def _receive(line: socket.socket, timeout_s: float) -> dict | None:
  """Read one line of JSON; None when there is no sensible one."""
  line.settimeout(max(timeout_s, 0.1))
  data = b""
  try:
    while not data.endswith(b"\n") and len(data) < _LONGEST_MESSAGE:
      part = line.recv(4096)
      if not part:
        break
      data += part
    message = json.loads(data)
  except (OSError, ValueError):
    return None
  return message if isinstance(message, dict) else None
