"""The picture of a run: what is drawn in it, and how it is labelled."""

import numpy as np
import pytest

from prompt_tuning.jobs import learning_curve
from prompt_tuning.jobs.train_job import Run

LOSS = "train/loss"


def bank(tasks, seeds):
  return [
    Run(f"{task}_seed{seed}", seed, 0.3, task, None, task)
    for task in tasks
    for seed in range(seeds)
  ]


def losses(runs, *values):
  return [
    {"step": step, "run": k, LOSS: value + k}
    for k in range(len(runs))
    for step, value in enumerate(values, 1)
  ]


def test_up_to_ten_runs_have_a_line_each():
  runs = bank(["a", "b"], 5)
  drawn = learning_curve.lines(losses(runs, 2.0, 1.0), runs, "b", LOSS)
  assert [line.label for line in drawn] == [f"seed{k}" for k in range(5)]
  assert drawn[1].steps == (1, 2)
  assert drawn[1].middle == drawn[1].low == drawn[1].high == (8.0, 7.0)


def test_more_are_a_mean_and_a_band_per_task():
  runs = bank(["a", "b"], 6)
  (line,) = learning_curve.lines(losses(runs, 2.0, 1.0), runs, "b", LOSS)
  assert line.label == "mean of 6, least to most"
  of_task = np.arange(6, 12)
  assert line.middle == (2 + of_task.mean(), 1 + of_task.mean())
  assert line.low == (8.0, 7.0)
  assert line.high == (13.0, 12.0)


def test_settings_that_differ_are_not_averaged_while_they_can_be_told_apart():
  runs = [
    Run(f"lr{rate}_seed{seed}", seed, rate, "a", None, f"lr{rate}")
    for rate in (0.1, 0.3)
    for seed in range(8)
  ]
  drawn = learning_curve.lines(losses(runs, 1.0), runs, "a", LOSS)
  labels = [line.label for line in drawn]
  assert labels == [f"lr{r} mean of 8, least to most" for r in (0.1, 0.3)]


def test_a_lost_run_leaves_the_mean():
  runs = bank(["a"], 11)
  entries = losses(runs, 1.0)
  entries[0][LOSS] = None
  (line,) = learning_curve.lines(entries, runs, "a", LOSS)
  assert line.middle == (1 + np.arange(1, 11).mean(),)


@pytest.mark.parametrize(
  ("tags", "name"),
  [
    (["rte/accuracy"], "accuracy"),
    (["rte/accuracy", "rte/gold_share/yes", "rte/rank/accuracy"], "accuracy"),
    (["cb/accuracy", "cb/f1"], "mean of accuracy, f1"),
    (["cb/accuracy", "rte/accuracy"], "accuracy; mean of 2 tasks"),
    ([], "score"),
  ],
)
def test_the_axis_has_the_metrics_name(tags, name):
  entry = {"step": 1, "run": 1} | {f"inference_eval/{t}": 1.0 for t in tags}
  other = {"step": 1, "run": 0, "inference_eval/wic/other": 1.0}
  assert learning_curve.metric([entry, other], [1]) == name


def test_every_task_has_axes_of_its_own(tmp_path, monkeypatch):
  figures = []
  draw = learning_curve._describe
  monkeypatch.setattr(
    learning_curve,
    "_describe",
    lambda axes, *rest: (figures.append(axes), draw(axes, *rest)),
  )
  runs = bank(["a", "b", "c"], 1)
  path = tmp_path / "curve.png"
  learning_curve.draw(losses(runs, 2.0, 1.0, 0.5), runs, path, 0)
  titles = [axes.get_title() for axes in figures]
  assert titles == ["a", "a", "b", "b", "c", "c"]
  assert all(len(axes.lines) <= 1 for axes in figures)
  for axes in figures:
    steps = axes.xaxis.get_major_locator().tick_values(*axes.get_xlim())
    assert all(step == int(step) for step in steps)
  assert path.read_bytes()[:4] == b"\x89PNG"


def test_a_curve_without_scores_can_be_drawn(tmp_path):
  runs = bank(["a"], 2)
  entries = losses(runs[:1], 2.0, 1.0)
  entries.append({"step": 4, "run": 0, LOSS: None})  # it diverged
  learning_curve.draw(entries, runs, tmp_path / "curve.png", 0)
  assert (tmp_path / "curve.png").stat().st_size > 10_000
  assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]
