"""A process that holds one side and does what it is told, line by line.

  python -m benchmarks.sides.worker SIDE FOLDER [OPTIONS]

OPTIONS are the side's own, in JSON: `first`, the shape of the first step, for
one that compiles it ahead; `dtype`, of a model on an accelerator.
Reads one JSON object a line, `{"do": "step", ...}`, answers with one. Prints of
libraries go to stderr. Between lines it waits without computing, so that sides
can take turns in processes of their own.
"""

import importlib
import json
import os
import pathlib
import sys
import time
from typing import Any

from benchmarks.sides import work
from prompt_tuning.machine import memory


def answer(side: Any, asked: dict[str, Any]) -> dict[str, Any]:
  """Do what a line asks for.

  Args:
    side: the side.
    asked: `do`: `step`, `decode` (with `length`) or `save` (with `folder`); and
      batches, see `work.batches`.

  Returns:
    `seconds` and `results` of every repetition; `peak_bytes` so far.
  """
  seconds, results = [], []
  actions = {
    "step": lambda text: side.step(text),
    "decode": lambda text: side.decode(text, asked["length"]).tolist(),
    "save": lambda _: side.save(pathlib.Path(asked["folder"])),
  }
  for text in work.batches(asked):
    start = time.perf_counter()
    results.append(actions[asked["do"]](text))
    seconds.append(time.perf_counter() - start)
  return {"seconds": seconds, "results": results, "peak_bytes": peak_bytes()}


def peak_bytes() -> int:
  """Read the most memory that this process has had.

  Not `ru_maxrss`, which begins with that of the process that started this one.
  """
  for line in pathlib.Path("/proc/self/status").read_text().splitlines():
    if line.startswith("VmHWM:"):
      return int(line.split()[1]) * 1024
  raise RuntimeError("/proc/self/status has no VmHWM: Linux only.")


def main() -> None:
  """Build the side, then serve."""
  replies = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)
  start = time.perf_counter()
  if sys.argv[1] == "project":
    memory.keep()  # as its commands do
  module = importlib.import_module(f"benchmarks.sides.{sys.argv[1]}")
  options = json.loads(sys.argv[3]) if sys.argv[3:] else {}
  if "first" in options:
    options["first"] = work.Shape(*options["first"])
  side = module.Side(pathlib.Path(sys.argv[2]), **options)
  built = {"build_s": time.perf_counter() - start, "device": side.device}
  print(json.dumps(built), file=replies)
  replies.flush()
  for line in sys.stdin:
    print(json.dumps(answer(side, json.loads(line))), file=replies)
    replies.flush()


if __name__ == "__main__":
  main()
