"""Join the processes of a job, and name those that are missing.

`jax.distributed.initialize` ends the process with a stack trace when a host is
missing. So the processes first connect to the coordinator, at the same address.
When time is up, the coordinator tells every connected process which ones are
missing. The connections stay open, see `watch`.
"""

import atexit
import dataclasses
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

from prompt_tuning.machine.watch import Watch

logger = logging.getLogger(__name__)

_watch: Watch | None = None  # of the other processes, once they have met

_LONGEST_MESSAGE = 1 << 16
_RETRY_S = 0.2
_DEFAULT_TIMEOUT_S = 300  # JAX's own
_PORT_KEY = "prompt_tuning/port_of_watch"
_MEETING_S = 30  # for processes that JAX has found already
_SETTLE_S = 3.0  # enough to hear which processes are gone


@dataclasses.dataclass(frozen=True)
class Distributed:
  """How the processes of a multi-host job find each other.

  Attributes:
    coordinator_address: host:port of process 0; None: found by JAX (on TPU
      pods and under SLURM), or not needed.
    process_count: processes of the job.
    process_index: index of this process.
    initialization_timeout: seconds to wait for the others.
    requested: whether to initialise at all.
  """

  coordinator_address: str | None = None
  process_count: int | None = None
  process_index: int | None = None
  initialization_timeout: int = 300
  requested: bool = False


class MissingHostError(ConnectionError):
  """Not all processes connected in time."""


def join(settings: Distributed) -> None:
  """Join the processes of a job, if it has several.

  Args:
    settings: how they find each other.

  Raises:
    MissingHostError: names the processes that did not connect in time, or the
      address of a coordinator that does not answer.
    ValueError: flags that contradict each other.
  """
  if not settings.requested:
    return
  import jax  # here, so that reading flags stays cheap

  timeout_s = settings.initialization_timeout or _DEFAULT_TIMEOUT_S
  if settings.coordinator_address is None:
    # A cluster that JAX knows (TPU pods, Slurm, ...): it finds the processes.
    jax.distributed.initialize(initialization_timeout=timeout_s)
    _watch_job()
    return
  count, index = settings.process_count, settings.process_index
  if count is None or index is None or not 0 <= index < count:
    raise ValueError(
      f"--coordinator_address needs --process_count and --process_index, from "
      f"0 to count - 1; got {count} and {index}."
    )
  lines: Mapping[int, socket.socket] = {}
  if count > 1:
    lines = meet(
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
  if lines:
    _keep(Watch(lines, index, count))


def _watch_job() -> None:
  """Watch the processes that JAX has found. If that fails, the job continues.

  JAX's service uses the coordinator's port, so process 0 opens another one and
  tells the others in JAX's key-value store.
  """
  from jax._src import distributed  # where the coordinator is, says only this

  try:
    job: Any = distributed.global_state
    count, index = job.num_processes, job.process_id
    if count == 1:
      return
    if index == 0:
      with _server(0, count) as server:
        job.client.key_value_set(_PORT_KEY, str(server.getsockname()[1]))
        missing, lines = _listen(server, count, time.monotonic() + _MEETING_S)
    else:
      host = job.coordinator_address.rpartition(":")[0].strip("[]")
      port = job.client.blocking_key_value_get(_PORT_KEY, 1_000 * _MEETING_S)
      deadline = time.monotonic() + _MEETING_S
      missing, lines = _call(host, int(port), index, deadline, _MEETING_S)
    if missing:
      raise MissingHostError(f"process {', '.join(map(str, missing))}")
  except Exception as error:  # of another version of JAX, or a closed port
    logger.warning(
      "Processes of this job cannot watch each other (%s). If one is lost, "
      "only JAX reports it, after 100 s.",
      error,
    )
    return
  _keep(Watch(lines, index, count))


def _keep(watch: Watch) -> None:
  """Watch the other processes until this one ends."""
  global _watch
  _watch = watch
  watch.start()
  # Python runs the function that is registered last first. JAX's own waits for
  # all processes.
  atexit.register(_leave, watch)


def _leave(watch: Watch) -> None:
  """Say goodbye; after an error, end without waiting for the others."""
  error = getattr(sys, "last_value", None)  # an exception that nobody caught
  if error is not None and watch.status is None:
    if message := settle():
      print(f"error: {message}", file=sys.stderr)
    fail(f"{type(error).__name__}: {error}", 1)
  if watch.status is None:
    watch.leave()
    return
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(watch.status)


def fail(error: str, status: int) -> None:
  """Tell the other processes, if there are any, that this one fails.

  Args:
    error: why it fails.
    status: exit status of this process.
  """
  if _watch is not None:
    _watch.leave(error)
    _watch.status = status


def settle(error: str | None = None) -> str | None:
  """Wait a moment after an error: another process's end may be the cause.

  If another process is gone, this one ends here, with a message that says so.

  Args:
    error: that of this process; a message does not repeat it.

  Returns:
    A message about another process that failed.
  """
  if _watch is None:
    return None
  _watch.join(_SETTLE_S)
  if error is not None and error == _watch.error:
    return f"process {_watch.lost} ended with the same error."
  return _watch.heard


def all_come(what: str) -> bool:
  """Say whether all processes of the job reach a barrier soon.

  Unlike JAX's own barriers, this one does not wait for ever.

  Args:
    what: name of the barrier; use each name once.
  """
  from jax._src import distributed  # where the coordinator is, says only this

  job: Any = distributed.global_state
  if job.client is None:  # one process
    return True
  try:
    job.client.wait_at_barrier(f"prompt_tuning/{what}", 1_000 * _MEETING_S)
  except Exception as error:  # other versions have other classes
    logger.debug("%s: not all processes arrived.", what, exc_info=error)
    return False
  return True


def meet(
  address: str, count: int, index: int, timeout_s: float
) -> dict[int, socket.socket]:
  """Wait until all processes are connected.

  Args:
    address: `host:port` of process 0.
    count: number of processes.
    index: index of this process; 0 listens, the others connect.
    timeout_s: how long to wait, in seconds.

  Returns:
    Process index -> open connection: in process 0 to all others, in the others
    to process 0.

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
    with _server(int(port), count) as server:
      missing, lines = _listen(server, count, deadline)
  else:
    missing, lines = _call(host, int(port), index, deadline, timeout_s)
  if missing:
    for line in lines.values():
      line.close()
    raise MissingHostError(
      f"{len(missing)} of {count} processes did not come within {timeout_s:g} "
      f"s: process {', '.join(map(str, missing))}. Start the command there "
      f"with --coordinator_address={address} --process_count={count} "
      f"--process_index={missing[0]}, check that it reaches that address, or "
      "raise --initialization_timeout."
    )
  return lines


def _server(port: int, count: int) -> socket.socket:
  """Open a port on this machine, on IPv6 too if it has that; 0 for any."""
  if socket.has_dualstack_ipv6():
    return socket.create_server(
      ("", port), family=socket.AF_INET6, backlog=count, dualstack_ipv6=True
    )
  return socket.create_server(("", port), backlog=count)


def _listen(
  server: socket.socket, count: int, deadline: float
) -> tuple[list[int], dict[int, socket.socket]]:
  """Accept the others' calls; tell them, and return, who is missing."""
  came: dict[int, socket.socket] = {}
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
  for caller in came.values():
    caller.sendall(json.dumps({"missing": missing}).encode() + b"\n")
  return missing, came


def _call(
  host: str, port: int, index: int, deadline: float, timeout_s: float
) -> tuple[list[int], dict[int, socket.socket]]:
  """Tell the coordinator that this process is there; return who is missing."""
  problem: OSError | None = None
  while time.monotonic() < deadline:
    try:
      line = socket.create_connection((host, port), timeout=_RETRY_S * 5)
    except OSError as error:
      problem = error
    else:
      # The coordinator answers at the latest when its own time is up.
      left = deadline - time.monotonic() + timeout_s
      answer = _ask(line, {"process_index": index}, left)
      if answer is not None and isinstance(answer.get("missing"), list):
        return answer["missing"], {0: line}
      line.close()
    time.sleep(_RETRY_S)
  raise MissingHostError(
    f"Process {index} found no coordinator (process 0) at {host}:{port} within "
    f"{timeout_s:g} s: {problem}. Start process 0 there, check "
    "--coordinator_address, or raise --initialization_timeout."
  )


def _ask(line: socket.socket, message: dict, timeout_s: float) -> dict | None:
  try:
    line.sendall(json.dumps(message).encode() + b"\n")
  except OSError:
    return None
  return _receive(line, timeout_s)


def _receive(line: socket.socket, timeout_s: float) -> dict | None:
  """Read one line of JSON; None if there is no valid line."""
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
