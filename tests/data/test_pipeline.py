"""Training batches: nothing lost, exactly resumable, approximately uniform."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning.core.placement import Placement
from prompt_tuning.data import order, planning
from prompt_tuning.data.permutation import permutation
from prompt_tuning.data.pipeline import Layout, TrainBatches
from prompt_tuning.data.ragged import Ragged, from_rows

V = 32_128
LAYOUT = Layout(Placement((0, 1, 2), (3,), (4,)), V)


@dataclasses.dataclass(frozen=True)
class Store:
  inputs: Ragged
  targets: Ragged
  lengths: dict
  key: str = "store"


def make_store(n, seed=0, first=1000):
  """Examples that can be told apart: example i's text starts with first + i."""
  rng = np.random.default_rng(seed)
  inputs = [
    np.array([first + i, *rng.integers(2, 900, rng.integers(0, 30)), 1])
    for i in range(n)
  ]
  targets = [np.array([*rng.integers(2, 900, 1 + i % 3), 1]) for i in range(n)]
  return Store(
    from_rows(inputs, np.uint16),
    from_rows(targets, np.uint16),
    {"inputs": 32, "targets": 4},
  )


def examples_in(batch, first=1000):
  """The example numbers of a batch, from their first text token."""
  ids = batch["encoder_input_tokens"]
  return sorted(ids[(ids >= first) & (ids < V)] - first)


def take(iterator, count):
  return [next(iterator) for _ in range(count)]


def assert_same(batches, others):
  assert len(batches) == len(others)
  for batch, other in zip(batches, others, strict=True):
    assert batch.keys() == other.keys()
    for name in batch:
      np.testing.assert_array_equal(batch[name], other[name])


@pytest.mark.parametrize("batching", planning.BATCHINGS)
def test_continuing_equals_never_having_stopped(batching):
  def fresh():
    return iter(
      TrainBatches(make_store(50), 4, seed=3, layout=LAYOUT, batching=batching)
    )

  whole = take(fresh(), 40)
  for stop in (0, 1, 7, 12, 31):  # start, mid-window, mid-epoch, late
    interrupted = fresh()
    take(interrupted, stop)
    state = json.loads(json.dumps(interrupted.get_state()))
    resumed = fresh()
    take(resumed, 5)  # wherever it stood before
    resumed.set_state(state)
    assert resumed.get_state() == state
    assert_same(take(resumed, 40 - stop), whole[stop:])


@pytest.mark.parametrize("batching", ["buckets", "packed"])
def test_prefetching_changes_neither_batches_nor_states(batching):
  batches = TrainBatches(make_store(50), 4, seed=3, batching=batching)
  plain, ahead = iter(batches), iter(batches.prefetch())
  for _ in range(9):
    assert_same([next(plain)], [next(ahead)])
    assert plain.get_state() == ahead.get_state()
  state = ahead.get_state()
  expected = take(ahead, 4)
  ahead.set_state(state)
  assert_same(take(ahead, 4), expected)
  ahead.close()


@pytest.mark.parametrize("batching", ["fixed", "longest", "buckets"])
def test_every_epoch_has_every_example_once(batching):
  """Windows of 12 batches of 4, and epochs of 48 examples, coincide."""
  batches = iter(TrainBatches(make_store(48), 4, seed=0, batching=batching))
  epochs = [
    [i for batch in take(batches, 12) for i in examples_in(batch)]
    for _ in range(3)
  ]
  for epoch in epochs:
    assert sorted(epoch) == list(range(48))
  assert epochs[0] != epochs[1] != epochs[2]


def test_packing_loses_and_repeats_nothing():
  """After w windows of one epoch each: every example w times, or it waits."""
  batches = TrainBatches(make_store(40), 4, seed=1, batching="packed")
  seen = np.zeros(40, int)
  carried = np.zeros(0, np.int64)
  for window in range(12):
    plan, carried = batches.plan(window, carried)
    for places in plan:
      np.add.at(seen, places.examples, 1)
    waiting = np.bincount(carried, minlength=40)
    assert (seen + waiting == window + 1).all()


@settings(deadline=None, max_examples=40)
@given(
  n=st.integers(1, 60),
  batch_size=st.integers(1, 6),
  batching=st.sampled_from(planning.BATCHINGS),
  seed=st.integers(0, 2**31),
)
def test_batches_are_well_formed(n, batch_size, batching, seed):
  store = make_store(n)
  batches = TrainBatches(
    store, batch_size, seed, layout=LAYOUT, batching=batching
  )
  for batch in take(iter(batches), 5):
    shape = batch["encoder_input_tokens"].shape
    S = batch["decoder_target_tokens"].shape[1]
    if batches.shapes is not None:
      assert (*shape, S) in batches.shapes
    check_segments(batch, store)


def check_segments(batch, store):
  """Every segment is one whole example with its own virtual tokens."""
  ids = batch["encoder_input_tokens"]
  segments = batch.get("encoder_segment_ids", (ids != 0).astype(np.int32))
  own = batch.get("decoder_segment_ids")
  if own is None:
    own = (batch["decoder_input_tokens"] != 0).cumsum(1) > 0
    own = (
      own & (np.cumsum(batch["decoder_loss_weights"][:, ::-1], 1) > 0)[:, ::-1]
    )
  np.testing.assert_array_equal(segments != 0, ids != 0)
  for row in range(len(ids)):
    assert set(segments[row]) - {0} == set(own[row].astype(int)) - {0}
    for segment in set(segments[row]) - {0}:
      positions = np.flatnonzero(segments[row] == segment)
      assert (np.diff(positions) == 1).all(), "not split"
      *prefix, first, second = ids[row, positions][:5].tolist()
      del second
      assert prefix == [V, V + 1, V + 2]
      text = ids[row, positions][3:]
      assert text[-2] == V + 3, "suffix before EOS"
      example = store.inputs[first - 1000].tolist()
      assert np.delete(text, -2).tolist() == example
      outputs = np.flatnonzero(own[row] == segment)
      target = store.targets[first - 1000].tolist()
      inputs = batch["decoder_input_tokens"][row, outputs].tolist()
      assert inputs == [V + 4, 0, *target[:-1]]
      targets = batch["decoder_target_tokens"][row, outputs].tolist()
      assert targets == [0, *target]
      weights = batch["decoder_loss_weights"][row, outputs].tolist()
      assert weights == [0.0] + [1.0] * len(target)


@pytest.mark.parametrize("batching", ["fixed", "buckets", "packed"])
def test_hosts_share_the_global_batch(batching):
  store = make_store(64)

  def read(**shard):
    return take(
      iter(TrainBatches(store, 8, seed=5, batching=batching, **shard)), 12
    )

  parts = [read(shard=(index, 4)) for index in range(4)]
  joined = [
    {name: np.concatenate([b[name] for b in group]) for name in group[0]}
    for group in zip(*parts, strict=True)
  ]
  assert_same(joined, read())


@pytest.mark.parametrize("batching", planning.BATCHINGS)
def test_a_host_reads_only_its_own_rows(batching, monkeypatch):
  store, read = make_store(64), []
  gather = Ragged.gather

  def counted(ragged, rows):
    if ragged is store.inputs:
      read.extend(rows)
    return gather(ragged, rows)

  monkeypatch.setattr(Ragged, "gather", counted)
  batches = TrainBatches(
    store, 8, seed=5, batching=batching, layout=LAYOUT, shard=(1, 4)
  )
  brought = [i for b in take(iter(batches), 6) for i in examples_in(b)]
  assert sorted(read) == sorted(brought)
  assert len(read) < 64


def test_fixed_shapes_are_the_limits_plus_virtual_tokens():
  batches = TrainBatches(make_store(9), 2, 0, layout=LAYOUT, batching="fixed")
  assert batches.shapes == ((2, 32 + 4, 4 + 1),)
  unlimited = dataclasses.replace(
    make_store(9), lengths={"inputs": None, "targets": None}
  )
  longest = int(unlimited.inputs.lengths.max())
  batches = TrainBatches(unlimited, 2, 0, batching="fixed")
  assert batches.shapes == ((2, longest, 4),)


def test_packed_rows_of_a_given_size():
  """The shape does not follow the data, and every example still is whole."""
  store = make_store(40)
  settings = {"layout": LAYOUT, "batching": "packed", "packed_size": (71, 23)}
  batches = TrainBatches(store, 4, 3, **settings)
  assert batches.shapes == ((4, 71, 23),)
  for batch in take(iter(batches), 6):
    assert batch["encoder_input_tokens"].shape == (4, 71)
    assert batch["decoder_target_tokens"].shape == (4, 23)
    check_segments(batch, store)
  chosen = TrainBatches(store, 4, 3, layout=LAYOUT, batching="packed")
  assert chosen.identity != batches.identity, "no run goes on with another size"


@pytest.mark.parametrize("excess", [(0, 0), (1, 0), (0, 1)])
def test_packed_rows_hold_the_longest_example_or_say_so(excess):
  store = make_store(20)
  longest = int(store.inputs.lengths.max()) + 4, 4 + 1
  size = (longest[0] - excess[0], longest[1] - excess[1])
  settings = {"layout": LAYOUT, "batching": "packed", "packed_size": size}
  if not any(excess):
    assert TrainBatches(store, 2, 0, **settings).shapes == ((2, *size),)
    return
  message = (
    f"rows of {size[0]} encoder and {size[1]} decoder positions cannot hold "
    f"examples of up to {longest[0]} and {longest[1]}; raise PACKED_LENGTHS"
  )
  with pytest.raises(ValueError, match=message):
    TrainBatches(store, 2, 0, **settings)


def test_buckets_waste_less_than_fixed():
  def share(batching):
    batches = iter(TrainBatches(make_store(640), 8, 0, batching=batching))
    read = [b["encoder_input_tokens"] for b in take(batches, 80)]
    return sum((ids != 0).sum() for ids in read) / sum(a.size for a in read)

  assert share("fixed") < share("buckets") < share("packed")


def test_neighbouring_seeds_are_not_shifted_epochs():
  """As grain's own would be: epoch e of seed s is seeded with s + e."""
  epochs = {
    tuple(order.Order([30], [1.0], seed).read(30 * epoch, 30))
    for seed in (0, 1, 2)
    for epoch in range(3)
  }
  assert len(epochs) == 9
  assert all(sorted(epoch) == list(range(30)) for epoch in epochs)


def test_order_is_uniform():
  """Every example comes equally often in every fifth of an epoch."""
  counts = np.zeros((20, 5))
  for seed in range(200):
    examples = order.Order([20], [1.0], seed).read(0, 20)
    counts[examples, np.arange(20) // 4] += 1
  # 200 draws, probability 1/5: standard deviation 5.7.
  assert abs(counts - 40).max() < 5 * 5.7


@given(st.integers(1, 9), st.integers(0, 40), st.integers(1, 40))
def test_order_is_read_from_anywhere(size, start, count):
  whole = order.Order([size], [1.0], 3).read(0, start + count)
  part = order.Order([size], [1.0], 3).read(start, count)
  np.testing.assert_array_equal(part, whole[start:])
  mixed = [order.Order([size, 4], [2.0, 1.0], 3) for _ in range(2)]
  whole = mixed[0].read(0, start + count)
  np.testing.assert_array_equal(mixed[1].read(start, count), whole[start:])


def test_the_permutation_does_not_change():
  """Saved runs depend on it, whatever the version of numpy."""
  assert permutation(8, 0, 1).tolist() == [3, 7, 4, 2, 1, 6, 5, 0]


def test_mixtures_follow_their_rates():
  parts = [(make_store(30), 3.0), (make_store(50, first=2000), 1.0)]
  batches = iter(TrainBatches(parts, 4, seed=0, batching="fixed"))
  ids = np.concatenate(
    [b["encoder_input_tokens"][:, 0] for b in take(batches, 100)]
  )
  assert (ids < 2000).sum() == 300
  assert set(ids[ids < 2000]) == set(range(1000, 1030))
  assert len(set(ids[ids >= 2000])) == 50


def test_a_state_of_other_data_is_refused():
  state = iter(TrainBatches(make_store(9), 2, seed=0)).get_state()
  other = iter(TrainBatches(make_store(9), 2, seed=1))
  with pytest.raises(ValueError, match="belongs to other data"):
    other.set_state(state)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"batching": "bucket"}, "Unknown batching 'bucket'"),
    ({"shard": (0, 3)}, "BATCH_SIZE must be a multiple"),
    ({"tokens": make_store(0)}, "No examples"),
  ],
)
def test_bad_settings(change, message):
  settings = {"tokens": make_store(9), "batch_size": 4, "seed": 0, **change}
  with pytest.raises(ValueError, match=message):
    TrainBatches(**settings)
