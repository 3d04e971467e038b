"""A process to be killed: `python killed_run.py FOLDER [ADDRESS COUNT INDEX]`.

Reports every step on standard output, so that the test can choose a moment.
With an address, it is one of several that take every step together. Without a
folder, it reads `FOLDER` or `FOLDER ADDRESS COUNT` line by line, and for each
has children that do not import everything again.
"""

import atexit
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from prompt_tuning.core import partition
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.outputs import Outputs
from prompt_tuning.core.tree import flatten
from prompt_tuning.launch.flags import Distributed
from prompt_tuning.machine import processes
from prompt_tuning.train import loop, objectives, optimizers, state, step

V, H, RUNS = 32, 8, 2
# More than 20 kills let one process take on a fast machine; several are slower.
STEPS, STEPS_TOGETHER = 1000, 60
rng = np.random.default_rng(0)
TABLE = rng.normal(size=(V, H)).astype(np.float32)


class Batches:
  count = 0

  def __next__(self):
    rows = np.random.default_rng(self.count).integers(2, V, (2 * RUNS, 3))
    self.count += 1
    rows = rows.astype(np.int32)
    return {
      "encoder_input_tokens": rows,
      "decoder_target_tokens": rows[:, ::-1].copy(),
      "run_ids": np.repeat(np.arange(RUNS, dtype=np.int32), 2),
    }

  def get_state(self):
    return {"count": self.count}

  def set_state(self, saved):
    self.count = saved["count"]


def forward(params, batch, delta, keys):
  """A backbone of one layer: the loop does not care what it trains."""
  x = params["table"][batch["encoder_input_tokens"]]
  x = x + delta.virtual[batch["run_ids"]]
  noise = jax.vmap(lambda k: jax.random.normal(k, (1, H)))(keys)
  return Outputs((x + 0.1 * noise) @ params["table"].T)


def main(folder, address=None, count="1", index="0"):
  if address is not None:
    settings = Distributed(address, int(count), int(index), 60, True)
    processes.join(settings)
  trainable = {"tuner": {"rows": jnp.zeros((RUNS, 3, H))}}
  frozen = {"model": {"table": jnp.asarray(TABLE)}}
  optimizer = optimizers.bank_optimizer(
    optimizers.Adafactor(), [0.1, 0.03], start_step=0
  )
  program = step.StepProgram(
    forward=forward,
    produce=lambda p, _: Delta(virtual=p["rows"]),
    partition=partition.build(partition.TUNER_ONLY, trainable | frozen),
    objective=objectives.CrossEntropy(),
    optimizer=optimizer,
    num_runs=RUNS,
  )
  compiled = jax.jit(program.step)

  def reporting(*args):
    out = compiled(*args)
    if address is not None:
      # Stands for the step's own communication: nobody goes on alone.
      multihost_utils.process_allgather(np.ones(1))
    os.write(1, b"step\n")  # in one piece, whenever the process is killed
    return out

  def evaluate(trainable):
    values = np.asarray(flatten(trainable)["tuner/rows"])
    return [loop.RunEvaluation(float(np.sin(v.sum() * 9)), {}) for v in values]

  loop.train(
    reporting,
    state.create(trainable, optimizer, [0, 1]),
    frozen,
    Batches(),
    settings=loop.Settings(
      num_steps=STEPS if address is None else STEPS_TOGETHER,
      log_period=7,
      eval_period=5,
      save_period=3,
      progress_bar=False,
      tensorboard=False,
    ),
    folder=folder,
    manifest={"run": "killed"},
    summarise=program.objective.summarise,
    evaluate=evaluate,
  )


def serve():
  """Let children run in every folder that is asked for."""
  for folder, *together in map(str.split, sys.stdin):
    count = int(together[1]) if together else 1
    children = [child(folder, together, index) for index in range(count)]
    print("children", *children, flush=True)
    statuses = [os.waitpid(number, 0)[1] for number in children]
    print("ended", *map(os.waitstatus_to_exitcode, statuses), flush=True)


def child(folder, together, index):
  """Start one process; returns its number."""
  number = os.fork()  # JAX has not started yet
  if number:
    return number
  status = 1
  try:
    main(folder, *together, *([str(index)] if together else []))
    sys.stdout.flush()
    atexit._run_exitfuncs()  # goodbye to the others
    status = 0
  finally:
    os._exit(status)


if __name__ == "__main__":
  if len(sys.argv) > 1:
    main(*sys.argv[1:])
  else:
    serve()
