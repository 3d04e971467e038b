"""Epochs that the benchmarks time by a few of their batches."""

import dataclasses

import numpy as np
import pytest

from benchmarks import epochs, lengths
from prompt_tuning.data.ragged import Ragged, from_rows

EXAMPLES = 203


@dataclasses.dataclass(frozen=True)
class Store:
  inputs: Ragged
  targets: Ragged
  lengths: dict
  key: str = "store"


@pytest.fixture(scope="module")
def tokens():
  """Examples with a few long ones among many short."""
  rng = np.random.default_rng(0)
  sizes = np.minimum(rng.geometric(0.01, EXAMPLES) + 4, 511)
  inputs = [np.append(rng.integers(2, 900, size), 1) for size in sizes]
  targets = [np.array([5, 1])] * EXAMPLES
  return Store(
    from_rows(inputs, np.uint16), from_rows(targets, np.uint16), epochs.LENGTHS
  )


def test_an_epoch_of_buckets_has_every_shape_as_often_as_the_pipeline(tokens):
  epoch = epochs.own(tokens, "buckets")
  widths = [batch["encoder_input_tokens"].shape[1] for batch in epoch.batches]
  assert len(set(widths)) == len(widths) > 1
  assert epoch.examples >= EXAMPLES
  assert sum(epoch.counts) * epochs.ROWS >= epoch.examples
  assert epoch.widest["encoder_input_tokens"].shape[1] == max(widths)


def test_an_epoch_of_packed_rows_counts_examples_not_rows(tokens):
  epoch = epochs.own(tokens, "packed")
  assert epoch.examples >= EXAMPLES
  assert sum(epoch.counts) * epochs.ROWS < EXAMPLES


def test_an_epoch_padded_to_the_limits_has_one_shape(tokens):
  epoch = epochs.fixed(tokens)
  assert [batch["inputs"].shape for batch in epoch.batches] == [(8, 512)]
  assert epoch.counts == [EXAMPLES / 8]


def test_sampled_widths_have_the_mean_of_all(tokens, tolerance):
  epoch = epochs.longest(tokens, 8)
  everything = epochs.longest(tokens, EXAMPLES // 8)  # every batch a sample
  assert everything.counts == [1] * (EXAMPLES // 8)

  def mean(found):
    widths = [batch["inputs"].shape[1] for batch in found.batches]
    return np.average(widths, weights=found.counts)

  assert sum(epoch.counts) == sum(everything.counts)
  assert mean(epoch) == pytest.approx(
    mean(everything), rel=tolerance["epochs"]["rtol"]
  )
  widest = max(batch["inputs"].shape[1] for batch in everything.batches)
  assert epoch.widest["inputs"].shape[1] == widest


def test_fewer_batches_than_samples_are_each_taken_once(tokens):
  few = dataclasses.replace(
    tokens,
    inputs=from_rows([tokens.inputs[i] for i in range(24)], np.uint16),
    targets=from_rows([tokens.targets[i] for i in range(24)], np.uint16),
  )
  assert epochs.longest(few, 8).counts == [1, 1, 1]


def test_a_rate_weighs_batches_by_how_many_they_stand_for():
  epoch = epochs.Epoch([{}, {}], [3, 1], 32, {})
  assert epoch.rate([2.0, 10.0]) == 2.0


def test_a_batch_of_the_pipeline_without_its_prompt_is_its_texts(tokens):
  batch = epochs.own(tokens, "buckets").batches[0]
  plain = epochs.without_prompt(batch)
  known = {tuple(tokens.inputs[i].tolist()) for i in range(EXAMPLES)}
  for row, target in zip(plain["inputs"], plain["targets"], strict=True):
    if row.any():
      assert tuple(row[row > 0].tolist()) in known
      assert target[target > 0].tolist() == [5, 1]


def test_sides_get_the_same_texts_where_a_bucket_is_wider_than_the_limit():
  """Its width is rounded up, here to 616 positions for 612."""
  rng = np.random.default_rng(1)
  inputs = [np.append(rng.integers(2, 900, 511), 1) for _ in range(16)]
  targets = [np.array([5, 1])] * 16
  tokens = Store(
    from_rows(inputs, np.uint16), from_rows(targets, np.uint16), epochs.LENGTHS
  )
  sides = lengths.compared(lengths.describe(tokens))
  wide = sides["buckets"]["encoder_input_tokens"]
  assert wide.shape[1] > epochs.PROMPT_LENGTH + epochs.LENGTHS["inputs"]
  for side in ("fixed", "peft"):
    np.testing.assert_array_equal(
      sides[side]["inputs"], wide[:, epochs.PROMPT_LENGTH :][:, :512]
    )
