"""The project's side of the benchmarks, on a tiny model."""

import numpy as np
import pytest

from benchmarks import turns
from benchmarks.sides import making, project, work

SHAPE = work.Shape(rows=2, inputs=8, targets=4)


def test_a_step_that_is_compiled_ahead_is_the_same_step(tmp_path, compiled):
  making.write(tmp_path, "t5_1_1_tiny", 5)
  batch = work.text(SHAPE, 32_000)
  losses = {}
  for first in (None, SHAPE):
    compiled.clear()
    side = project.Side(tmp_path, first)
    losses[first] = [side.step(batch) for _ in range(3)]
    assert compiled.count("step") == 1
  np.testing.assert_array_equal(losses[None], losses[SHAPE])
  assert losses[SHAPE][2] < losses[SHAPE][0]


def test_a_side_that_ends_says_why(tmp_path):
  with pytest.raises(RuntimeError, match=r"No module named .*no_such_side"):
    turns.Worker("no_such_side", tmp_path)


def test_a_step_of_another_method_learns(tmp_path):
  making.write(tmp_path, "t5_1_1_tiny", 5, ["prefix"])
  side = project.Side(tmp_path, method="prefix")
  batch = work.text(SHAPE, 32_000)
  losses = [side.step(batch) for _ in range(2)]
  assert losses[1] < losses[0]
