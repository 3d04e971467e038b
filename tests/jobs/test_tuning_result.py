"""Which of several runs is meant: scores of two tasks are never compared."""

import math

import pytest

from prompt_tuning.infer.runs import Runs
from prompt_tuning.jobs.export import Origin
from prompt_tuning.jobs.tuning_result import Trained


def trained(**runs):
  """Make runs of (task, score)."""
  return Trained(
    {name: Runs() for name in runs},
    {name: Origin(task=task) for name, (task, _) in runs.items()},
    {name: {} for name in runs},
    {name: score for name, (_, score) in runs.items()},
    dict.fromkeys(runs, 10),
    "finished",
  )


SEVERAL = {
  "first_seed0": ("first", 40.0),
  "first_seed1": ("first", 90.0),
  "last_seed0": ("last", 30.0),
  "last_seed1": ("last", 20.0),
}


def test_the_best_of_one_task():
  runs = trained(seed0=("last", 1.0), seed1=("last", 2.0))
  assert runs.best == "seed1"
  assert runs.select("my own name") == "seed1"
  assert runs.select("seed0") == "seed0", "a run's own name is that run"
  nothing = trained(seed0=("last", -math.inf), seed1=("last", -math.inf))
  assert nothing.best == "seed0"


def test_the_best_of_several_tasks_is_that_of_the_task():
  runs = trained(**SEVERAL)
  assert runs.best_of("last") == runs.select("last") == "last_seed0"
  assert runs.select("first") == "first_seed1"
  assert runs.select("last_seed1") == "last_seed1"


def test_without_the_task_it_is_refused(tmp_path):
  runs = trained(**SEVERAL)
  with pytest.raises(
    ValueError, match=r"^Which task is meant\? Name.*first, last"
  ):
    _ = runs.best
  with pytest.raises(
    ValueError, match=r"^No run is of 'rte'\. Name.*last_seed1"
  ):
    runs.select("rte")
  with pytest.raises(ValueError, match="Which task is meant"):
    runs.save(tmp_path / "prompt.npy")
  assert not list(tmp_path.iterdir())
