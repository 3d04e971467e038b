"""What a training cost, by its log."""

import pytest

from prompt_tuning.jobs import costs
from prompt_tuning.jobs.costs import Cost
from prompt_tuning.train.logs import MetricsLog


def log(folder, lines):
  out = MetricsLog(folder, 2, False)
  for step, speed in lines:
    for run in (0, 1):
      tags = {"timing/steps_per_second": speed, "memory/step_bytes": step}
      out.write(step, run, {"loss": 1.0, **tags}, "train")
      out.write(step, run, {"score": 0.5}, "selection")


def test_all_steps_count_also_those_of_another_process(tmp_path):
  """The second line has two steps of a process that was killed."""
  log(tmp_path, [(103, 0.5), (106, 2.0), (109, 4.0)])
  found = costs.of_training(str(tmp_path), 9, 100)
  assert found == Cost(3 / 0.5 + 3 / 2.0 + 3 / 4.0, (1 / 2 + 1 / 4) / 2, 109)


def test_steps_behind_the_last_line_count_as_the_line_does(tmp_path):
  log(tmp_path, [(3, 0.5)])
  found = costs.of_training(str(tmp_path), 5, 0)
  assert found.seconds == pytest.approx(10)
  assert found.step_seconds == 2


def test_a_log_without_speeds_says_nothing(tmp_path):
  assert costs.of_training(str(tmp_path), 5, 0) == Cost()
  log(tmp_path, [(3, float("nan"))])
  assert costs.of_training(str(tmp_path), 5, 0) == Cost(step_bytes=3)
