"""The training loss on examples held out, teacher-forced: T5X's train_eval."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import Mesh

from prompt_tuning.core import axes
from prompt_tuning.core.types import Params
from prompt_tuning.data.assembly import NumpyBatch
from prompt_tuning.data.bank import stack_runs
from prompt_tuning.data.evaluation import EvaluationBatches
from prompt_tuning.data.pipeline import Layout
from prompt_tuning.jobs import feed
from prompt_tuning.jobs.settings import Dataset
from prompt_tuning.jobs.setup import Setup
from prompt_tuning.jobs.train_job import Run


class EvalLoss:
  """Computes the objective of every run on its task's held-out examples."""

  def __init__(
    self,
    dataset: Dataset,
    runs: Sequence[Run],
    setup: Setup,
    num_steps: int,
    vocab_rows: int,
    data_dir: str | None,
    mesh: Mesh | None,
    rules: axes.AxisRules,
  ):
    """Read the examples.

    Args:
      dataset: where and how to read.
      runs: the runs.
      setup: what trains.
      num_steps: batches to look at; fewer where there are fewer.
      vocab_rows: rows of the embedding table.
      data_dir: TFDS's data directory.
      mesh: where everything lies.
      rules: logical axis -> mesh axis.
    """
    self._setup, self._shard = setup, axes.batch_sharder(mesh, rules)
    self._runs, self._num_steps = runs, num_steps
    shard = axes.data_shard(mesh)
    self._batches: list[list[EvaluationBatches]] = []
    self._task_ids = feed.task_ids(dataset, runs, setup.tuners)
    for run, placement in zip(runs, setup.placements, strict=True):
      layout = Layout(placement, vocab_rows)
      caches = feed.load(dataset, run.task, data_dir)
      self._batches.append(
        [
          EvaluationBatches(
            cast(Any, tokens),
            dataset.batch_size,
            layout=layout,
            shard=shard,
          )
          for tokens, _ in caches
        ]
      )
    self._losses = jax.jit(setup.program.losses)

  def __call__(self, trainable: Params) -> list[dict[str, float]]:
    """Compute the metrics of every run.

    Args:
      trainable: the trainable part, with a leading run axis.

    Returns:
      `<task>/<T5X's tag>` -> number, for every run.
    """
    totals: dict[str, Any] = {}
    steps = 0
    for batch in self._stacked():
      sums = self._losses(trainable, self._setup.frozen, self._shard(batch))
      for name, values in jax.device_get(sums).items():
        totals[name] = totals.get(name, 0) + np.asarray(values, np.float64)
      steps += 1
    objective = self._setup.program.objective
    metrics = objective.summarise(totals, steps)
    return [
      {f"{run.task}/{tag}": float(values[k]) for tag, values in metrics.items()}
      for k, run in enumerate(self._runs)
    ]

  def _stacked(self) -> Iterator[NumpyBatch]:
    """Put a batch of every run side by side; runs without more batches rest."""
    streams = [
      _stream(of_run, ids)
      for of_run, ids in zip(self._batches, self._task_ids, strict=True)
    ]
    for _ in range(self._num_steps):
      batches = [next(stream, None) for stream in streams]
      present = [batch for batch in batches if batch is not None]
      if not present:
        return
      empty = {name: np.zeros_like(a) for name, a in present[0].items()}
      yield stack_runs([empty if b is None else b for b in batches])


def _stream(
  tasks: Sequence[EvaluationBatches], task_ids: Sequence[int] | None
) -> Iterator[NumpyBatch]:
  """Read a run's tasks one after another, with the task of each row."""
  if task_ids is None:
    yield from itertools.chain(*tasks)
    return
  for batches, number in zip(tasks, task_ids, strict=True):
    for batch in batches:
      rows = len(batch["encoder_input_tokens"])
      yield {**batch, "task_ids": np.full(rows, number, np.int32)}
