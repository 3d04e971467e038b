"""One of several training processes: `ADDRESS COUNT INDEX OUT.npy`.

Trains a bank of two prompts on a mesh with one data-parallel way per process;
process 0 writes the prompts. With COUNT 1, the same run in one process.
"""

import os
import pathlib
import sys

import jax
import numpy as np

from prompt_tuning.checkpoints import bundle
from prompt_tuning.core import axes, tree
from prompt_tuning.launch.flags import Distributed
from prompt_tuning.machine import processes
from prompt_tuning.models.t5 import network

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from tests import conftest as shared
from tests.train import conftest as tiny

# The tests' eight simulated devices are for one process; here each has one.
os.environ["XLA_FLAGS"] = ""


def main(address, count, index, out):
  count, index = int(count), int(index)
  requested = count > 1
  processes.join(Distributed(address, count, index, 60, requested))
  mesh = axes.make_mesh(data=count, model=1) if requested else None
  rules = axes.STANDARD_RULES
  params = tiny.calm(shared._random_params(tiny.CONFIG))
  run = tiny.Setup(params, seeds=(0, 1), rates=[0.03, 0.01])
  target = axes.restore_target(
    network.abstract_params(tiny.CONFIG),
    network.logical_axes(tiny.CONFIG),
    mesh,
    rules,
  )
  frozen = {
    "model": jax.tree.map(
      lambda a, t: jax.device_put(np.asarray(a), t.sharding),
      run.frozen["model"],
      target,
    )
  }
  state = axes.replicated(mesh, jax.tree.map(np.asarray, run.state))
  place, batches = axes.batch_sharder(mesh, rules), tiny.CountedBatches((0, 1))
  for _ in range(10):
    batch = next(batches)
    # Each process has its part of every run's rows, as the pipeline gives it.
    per_run = np.arange(8).reshape(2, 4)
    own = np.split(per_run, count, axis=1)[index].ravel()
    state, metrics = run.step(
      state, frozen, place({k: v[own] for k, v in batch.items()})
    )
  assert np.isfinite(jax.device_get(metrics.sums["loss"])).all()
  (prompts,) = bundle.to_host(tree.flatten(state.trainable)).values()
  if index == 0:
    np.save(out, prompts)


if __name__ == "__main__":
  main(*sys.argv[1:])
