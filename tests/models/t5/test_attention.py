"""Relative position buckets."""

import numpy as np
import pytest

from prompt_tuning.models.t5 import attention

# First distance of each bucket of T5's 32, up to 128; found identical in
# Flaxformer and Hugging Face.
BEFORE = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]
AFTER = [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]
CAUSAL = [
  *range(17),
  19,
  21,
  24,
  27,
  31,
  35,
  40,
  46,
  52,
  59,
  67,
  77,
  87,
  99,
  113,
]


def _expected(edges, distance, first_bucket=0):
  return first_bucket + sum(distance >= edge for edge in edges[1:])


@pytest.mark.parametrize("bidirectional", [True, False])
def test_bucket_edges(bidirectional):
  distances = np.arange(-400, 401)  # key - query
  buckets = attention.relative_position_bucket(
    distances, bidirectional=bidirectional, num_buckets=32, max_distance=128
  )
  for distance, bucket in zip(distances, buckets, strict=True):
    if not bidirectional:
      expected = _expected(CAUSAL, max(-distance, 0))
    elif distance <= 0:
      expected = _expected(BEFORE, -distance)
    else:
      expected = _expected(AFTER, distance, first_bucket=17)
    assert bucket == expected, distance


@pytest.mark.parity
def test_buckets_equal_hugging_face():
  torch = pytest.importorskip("torch", reason="parity needs the test extra")
  modeling = pytest.importorskip("transformers.models.t5.modeling_t5")
  distances = np.arange(-600, 601)
  for bidirectional in (True, False):
    for count, farthest in ((32, 128), (4, 8), (16, 64)):
      theirs = modeling.T5Attention._relative_position_bucket(
        torch.as_tensor(distances), bidirectional, count, farthest
      )
      ours = attention.relative_position_bucket(
        distances,
        bidirectional=bidirectional,
        num_buckets=count,
        max_distance=farthest,
      )
      np.testing.assert_array_equal(ours, theirs.numpy())
