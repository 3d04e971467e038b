"""Peak host memory and time of restoring a T5 from disk.

  python benchmarks/restore_memory.py [--size t5_1_1_base] [--out FILE.json]
    [--formats t5x,hf] [--dtypes float32]

A random checkpoint of the size is written to a temporary folder in each format.
Every measurement is a fresh process, which notes its resident memory once jax
is up, restores, and reports by how much its peak exceeds that. The claim:
at most 1.3 bytes of peak memory for each byte restored (1 of the 1.3 is the
restored model itself, since on CPU the devices' memory is the host's).
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

LIMIT = 1.3
FORMATS = ("t5x", "t5x_inline", "orbax", "hf")
DTYPES = ("float32", "bfloat16")


def write(folder: str, size: str, formats: Sequence[str]) -> None:
  """Write a random float32 model of `size` in some formats."""
  import numpy as np
  import orbax.checkpoint as ocp
  from flax import serialization

  from prompt_tuning.checkpoints import hf, restore, t5x_writer
  from prompt_tuning.core import tree
  from prompt_tuning.models.t5 import config, network

  rng = np.random.default_rng(0)
  model = config.get(size)
  flat = {
    path: rng.standard_normal(struct.shape, np.float32)
    for path, struct in tree.flatten(network.abstract_params(model)).items()
  }
  leaves = restore.leaves_of(tree.unflatten(flat))
  target = {"target": tree.unflatten(flat), "state": {"step": np.int32(1)}}
  root = pathlib.Path(folder)
  if "t5x" in formats:
    t5x_writer.write_t5x(root / "t5x" / "checkpoint_1", leaves, step=1)
  if "hf" in formats:
    hf.write_hf(root / "hf", leaves, model)
  if "orbax" in formats:
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=True)
    with ocp.Checkpointer(handler) as checkpointer:
      path = root / "orbax" / "checkpoint_1" / "state"
      checkpointer.save(path, args=ocp.args.PyTreeSave(target))
  if "t5x_inline" in formats:
    contents = {"version": 3, "optimizer": target}
    (root / "t5x_inline").mkdir()
    file = root / "t5x_inline" / "checkpoint_1"
    file.write_bytes(serialization.msgpack_serialize(contents))


def measure(path: str, size: str, dtype: str) -> dict[str, Any]:
  """Restore in this process and report its peak memory."""
  import jax

  from prompt_tuning.checkpoints import restore
  from prompt_tuning.models.t5 import config, network

  jax.numpy.zeros(()).block_until_ready()
  target = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, dtype),
    network.abstract_params(config.get(size)),
  )
  before = memory("VmRSS")
  pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
  start = time.perf_counter()
  params = restore.restore(path, target)
  jax.block_until_ready(params)
  seconds = time.perf_counter() - start
  peak = memory("VmHWM") - before
  restored = sum(x.nbytes for x in jax.tree.leaves(params))
  return {
    "restored_bytes": restored,
    "peak_bytes": peak,
    "ratio": round(peak / restored, 3),
    "seconds": round(seconds, 2),
  }


def memory(field: str) -> int:
  """Read one of this process's memory figures from Linux, in bytes."""
  status = pathlib.Path("/proc/self/status").read_text(encoding="utf-8")
  for line in status.splitlines():
    if line.startswith(field + ":"):
      return int(line.split()[1]) * 1024
  raise OSError(f"no {field} in /proc/self/status; this needs Linux")


def fresh(*args: str) -> str:
  """Run this script in a new process, on CPU."""
  command = [sys.executable, __file__, *args]
  env = {**os.environ, "JAX_PLATFORMS": "cpu"}
  return subprocess.run(
    command, check=True, stdout=subprocess.PIPE, text=True, env=env
  ).stdout


def main(argv: Sequence[str] | None = None) -> int:
  """Measure every format and dtype; exit 1 where the claim does not hold."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--size", default="t5_1_1_base")
  parser.add_argument("--formats", default=",".join(FORMATS))
  parser.add_argument("--dtypes", default=",".join(DTYPES))
  parser.add_argument("--out", help="JSON file to write")
  parser.add_argument("--write", help=argparse.SUPPRESS)
  parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  if args.write:
    write(args.write, args.size, args.formats.split(","))
    return 0
  if args.measure:
    print(json.dumps(measure(args.measure[0], args.size, args.measure[1])))
    return 0
  results = {}
  with tempfile.TemporaryDirectory() as folder:
    fresh("--write", folder, "--size", args.size, "--formats", args.formats)
    for kind in args.formats.split(","):
      path = f"{folder}/{kind}"
      path += "" if kind == "hf" else "/checkpoint_1"
      for dtype in args.dtypes.split(","):
        output = fresh("--measure", path, dtype, "--size", args.size)
        result = json.loads(output.splitlines()[-1])
        results[f"{kind}/{dtype}"] = result
        print(f"{kind:>10} {dtype:>8}: {result}", flush=True)
  report = {"size": args.size, "limit": LIMIT, "results": results}
  if args.out:
    pathlib.Path(args.out).write_text(
      json.dumps(report, indent=2) + "\n", encoding="utf-8"
    )
  return int(any(r["ratio"] > LIMIT for r in results.values()))


if __name__ == "__main__":
  sys.exit(main())
