"""What tests of several experiments share."""

import numpy as np
import pytest
from matplotlib import image

# Of the pixels: another processor may round the place of a text otherwise.
OTHERS = 1e-3


@pytest.fixture(scope="session")
def same_picture():
  """Insist that a figure of the repository is the one that is drawn today."""

  def insist(drawn, committed):
    today, ours = image.imread(drawn), image.imread(committed)
    message = f"{committed} is not what its results give today: draw it again"
    assert today.shape == ours.shape, message
    other = np.abs(today - ours).max(axis=-1) > 0.1
    assert other.mean() < OTHERS, f"{message}; {other.mean():.2%} of pixels"

  return insist
