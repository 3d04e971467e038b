"""A short run with evaluation, bests, exports and summary, compiled once.

As a script, it is a process to be killed:
`python -m tests.jobs.short_run FOLDER DATA MOMENT...` lets a child of its own
run in FOLDER/MOMENT and die by SIGKILL at that operation on the disk, for each
moment. DATA is what another one was made in. A moment may also be URL@MOMENT:
then it runs there, and dies at that operation of the bucket.
"""

import dataclasses
import functools
import json
import os
import pathlib
import signal
import sys
from unittest import mock

import jax
import jax.numpy as jnp
from matplotlib.backends.backend_agg import FigureCanvasAgg

from prompt_tuning.checkpoints.backbone import Backbone
from prompt_tuning.core import embedded
from prompt_tuning.core.outputs import Outputs
from prompt_tuning.data import custom
from prompt_tuning.jobs import conclusion, model_dir, train
from prompt_tuning.jobs.settings import Dataset, EvaluationSettings, MeshShape
from prompt_tuning.jobs.train_job import from_settings
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.train import loop
from prompt_tuning.train.compiled_step import Jitted
from prompt_tuning.tuners.prompt import Prompt
from tests.conftest import _random_params
from tests.failing_files import Disk, Store

STEPS = 4
ROWS = [("a cat", "yes"), ("a dog", "no"), ("the cat", "yes"), ("red", "no")]
MODEL = t5_config.get(
  "t5_1_1_tiny",
  vocab_size=4_096,
  num_encoder_layers=1,
  num_decoder_layers=1,
  remat_policy="none",
  dtype="float32",
)


class _Batches:
  """Gives the same batches in every process."""

  def __init__(self, batches):
    self._batches, self._count = batches, 0

  def __next__(self):
    self._count += 1
    return self._batches[self._count - 1]

  def get_state(self):
    return {"count": self._count}

  def set_state(self, state):
    self._count = state["count"]


def _forward(params, batch, delta, keys):
  """Stands for the model: logits that depend on what was learned."""
  del keys
  x = delta.virtual[batch["run_ids"]].sum(1) + 1
  logits = x @ params["token_embedder"]["embedding"].T
  length = batch["decoder_target_tokens"].shape[1]
  shape = (logits.shape[0], length, logits.shape[1])
  return Outputs(jnp.broadcast_to(logits[:, None], shape))


class ShortRun:
  """Four steps of two runs; the real command's parts, called in its order.

  But for what the frozen model computes in a step, which is of no concern here
  and takes long to trace.
  """

  def __init__(self, folder, data):
    """Build it all; what is compiled by the first run serves all others.

    Args:
      folder: an empty one.
      data: folder of the data and its tokens, which are made where they are not
        there yet.
    """
    files = {}
    for split in ("train", "validation"):
      lines = [json.dumps({"text": t, "label": y}) for t, y in ROWS * 2]
      files[split] = str(data / f"{split}.jsonl")
      pathlib.Path(files[split]).write_text("\n".join(lines))
    name = "short_run_speaks_of_a_cat"
    custom.declare(
      name,
      files=files,
      template="text: {text}",
      target_column="label",
      label_words=("no", "yes"),
    )
    shared = {
      "vocabulary_file": embedded.vocabulary(embedded.DEFAULT),
      "cache_dir": str(data / "tokens"),
      "batch_size": 2,
    }
    evaluated = Dataset(name, split="validation", **shared)
    job = from_settings(
      model=MODEL,
      dataset=Dataset(name, batching="fixed", **shared),
      tuner=Prompt(MODEL.emb_dim, encoder_length=2),
      seeds=(8, 9),  # of which one improves after its first evaluation
      initial_checkpoint_path=None,
      mesh=MeshShape(data=1),
      relative_steps=STEPS,
      evaluation=EvaluationSettings(evaluated, "rank", num_examples=4),
      eval_period=2,
      eval_steps=0,
      model_dir=str(folder),
      checkpoint_period=3,
      keep_checkpoints=1,
      log_period=4,
      progress_bar=False,
      tensorboard=False,
    )
    model = Backbone(MODEL, _random_params(MODEL), 0, "random")

    def noted(_, state, frozen, batches, **settings):
      # A step takes the state away; what prefetches does not survive a fork.
      self._state = jax.tree.map(jnp.copy, state)
      start = batches.get_state()
      self._batches = [next(batches) for _ in range(STEPS)]
      batches.set_state(start)
      self._frozen, self._settings = frozen, settings
      return loop.Result(state, [None, None], "finished", [None, None])

    with mock.patch.object(loop, "train", noted):
      self._outcome = train.train(job, model=model)
    program = self._outcome.setup.program
    self._step = Jitted(dataclasses.replace(program, forward=_forward))

  def __call__(self, folder):
    """Train in a folder, from the start or from what is there, and finish."""
    output = dataclasses.replace(self._outcome.output, model_dir=str(folder))
    write = functools.partial(train._write_reports, output)
    self._outcome.run_evaluator._write = write
    with model_dir.held(output.model_dir):
      result = loop.train(
        self._step,
        jax.tree.map(jnp.copy, self._state),
        self._frozen,
        _Batches(self._batches),
        **{**self._settings, "folder": folder},
      )
      outcome = self._outcome._replace(result=result, output=output)
      return conclusion.finish(outcome)


def without_pictures():
  """Write a few bytes where a learning curve is drawn, which takes long."""

  def write(self, path):
    pathlib.Path(path).write_bytes(b"\x89PNG")

  return mock.patch.object(FigureCanvasAgg, "print_png", write)


def _die(root, run, moment):
  """Run until an operation on the disk, and be gone."""
  url, _, at = moment.rpartition("@")

  def kill(number, *_):
    if number == int(at):
      os.kill(os.getpid(), signal.SIGKILL)

  (Store if url else Disk)(_Patch(), kill)
  run(url or root / moment)


class _Patch:
  """Stands for pytest's, in a process that ends soon."""

  def setattr(self, owner, name, value):
    setattr(owner, name, value)


def main(root, data, *moments):
  """Let a child die at every moment; what it imports is here already."""
  root = pathlib.Path(root)
  for moment in moments:
    child = os.fork()
    if not child:
      with without_pictures():
        run = ShortRun(root / "first", pathlib.Path(data))
        _die(root, run, moment)
      os._exit(0)
    _, status = os.waitpid(child, 0)
    print(moment, os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
  main(*sys.argv[1:])
