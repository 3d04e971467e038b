"""Which rows of the delta every run is scored by."""

import types

import jax.numpy as jnp
import pytest

from prompt_tuning.core.delta import Delta
from prompt_tuning.core.placement import Placement
from prompt_tuning.infer.evaluate import Job
from prompt_tuning.jobs.run_scores import RunEvaluator
from prompt_tuning.jobs.slots import Slot


@pytest.mark.parametrize(
  ("slots", "members"),
  [
    ([Slot(run, component=n) for run in (0, 1) for n in (0, 1)], (0, 1)),
    ([Slot(0), Slot(1)], ()),
  ],
)
def test_a_mixture_that_trains_its_model_is_scored_whole(
  slots, members, monkeypatch
):
  task = types.SimpleNamespace(name="any")
  dataset = types.SimpleNamespace(task=task)
  method = types.SimpleNamespace(
    placement=Placement(), answers=(), weighed_words=()
  )
  run_evaluator = object.__new__(RunEvaluator)
  run_evaluator.sets = {"any": [dataset]}
  run_evaluator._runs = [types.SimpleNamespace(task="any")] * 2
  run_evaluator._setup = types.SimpleNamespace(
    program=types.SimpleNamespace(
      tunes_model=True,
      partition=types.SimpleNamespace(merge=lambda some, rest: some | rest),
      produce=lambda *_: Delta(log_weight=jnp.zeros(len(slots) // 2)),
    ),
    frozen={},
    slots=tuple(slots),
    tuners=(method,) * 2,
  )
  asked = []

  def evaluate(runs, params, jobs):
    asked.append((len(runs.placements), float(params), *jobs))
    return []

  monkeypatch.setattr(run_evaluator, "evaluate", evaluate)
  run_evaluator.results({"model": jnp.array([5.0, 6.0])})
  count = len(slots) // 2
  assert asked == [
    (count, model, Job(dataset, 0, members)) for model in (5.0, 6.0)
  ]
