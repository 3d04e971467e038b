"""Batch arrays against a reference written with Python lists."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.core.placement import FIRST_SOFT, Placement
from prompt_tuning.data.assembly import Assembler, ExamplePlaces, one_per_row
from prompt_tuning.data.ragged import from_rows

V = 32_128
EOS = 1

token_rows = st.lists(
  st.tuples(
    st.lists(st.integers(2, 99), max_size=6),
    st.lists(st.integers(2, 99), max_size=4),
    st.booleans(),
  ),
  min_size=1,
  max_size=8,
)
rows_of = st.lists(st.integers(0, 9), max_size=3).map(tuple)
placements = st.builds(Placement, rows_of, rows_of, rows_of, rows_of)


def reference(inputs, targets, placement):
  """One example's segment, spelled out."""
  before = [V + r for r in placement.encoder_prefix]
  after = [V + r for r in placement.encoder_suffix]
  start = [V + r for r in placement.decoder_prefix]
  ends = inputs[-1:] if inputs[-1:] == [EOS] else []
  text = inputs[: len(inputs) - len(ends)]
  return {
    "encoder_input_tokens": [
      *(before + text[:1] + [V + r for r in placement.encoder_infix]),
      *(text[1:] + after + ends),
    ],
    "decoder_input_tokens": start + [0, *targets][: len(targets)],
    "decoder_target_tokens": [0] * len(start) + targets,
    "decoder_loss_weights": [0.0] * len(start) + [1.0] * len(targets),
  }


def build(examples, placement):
  rows = [
    (inputs + [EOS] * ends, [*targets, EOS])
    for inputs, targets, ends in examples
  ]
  assembler = Assembler(
    from_rows([np.array(r[0]) for r in rows], np.uint16),
    from_rows([np.array(r[1]) for r in rows], np.uint16),
    placement,
    V,
  )
  return assembler, [reference(*row, placement) for row in rows]


@given(token_rows, placements)
def test_unpacked_rows_are_the_segments(examples, placement):
  assembler, expected = build(examples, placement)
  T = int(assembler.encoder_lengths().max()) + 2
  S = int(assembler.decoder_lengths().max()) + 1
  n = len(examples)
  batch = assembler(one_per_row(np.arange(n), (n + 1, T, S)), packed=False)
  assert set(batch) == set(expected[0])
  for name, array in batch.items():
    is_weight = name == "decoder_loss_weights"
    assert array.dtype == (np.float32 if is_weight else np.int32)
    assert not array[n].any(), "a row without an example is padding"
    for row, segments in enumerate(expected):
      values = segments[name]
      assert array[row, : len(values)].tolist() == values
      assert not array[row, len(values) :].any()


@given(token_rows, placements)
def test_a_packed_row_is_its_segments_end_to_end(examples, placement):
  assembler, expected = build(examples, placement)
  encoder, decoder = assembler.encoder_lengths(), assembler.decoder_lengths()
  n = len(examples)
  places = ExamplePlaces(
    (1, int(encoder.sum()) + 3, int(decoder.sum()) + 3),
    np.arange(n),
    np.zeros(n, np.int64),
    np.cumsum(encoder) - encoder,
    np.cumsum(decoder) - decoder,
    np.arange(n) + 1,
  )
  batch = assembler(places, packed=True)
  for name, values in batch.items():
    if name.endswith("segment_ids"):
      feature = name.replace("segment_ids", "input_tokens")
      parts = [[i + 1] * len(e[feature]) for i, e in enumerate(expected)]
    else:
      parts = [e[name] for e in expected]
    joined = [value for part in parts for value in part]
    assert values[0].tolist() == joined + [0] * 3


def test_worked_example():
  """The layout of the module's docstring, in numbers."""
  placement = Placement((0, 1), (2,), (3,))
  assembler, _ = build([([50, 51], [60, 61], True)], placement)
  batch = assembler(one_per_row(np.arange(1), (1, 7, 5)), packed=False)
  assert batch["encoder_input_tokens"].tolist() == [
    [32128, 32129, 50, 51, 32130, 1, 0]
  ]
  assert batch["decoder_input_tokens"].tolist() == [[32131, 0, 60, 61, 0]]
  assert batch["decoder_target_tokens"].tolist() == [[0, 60, 61, 1, 0]]
  assert batch["decoder_loss_weights"].tolist() == [[0, 1, 1, 1, 0]]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_shards_are_the_rows_of_the_whole(count):
  examples = [([5] * (i % 3), [7] * (i % 2), True) for i in range(8)]
  assembler, _ = build(examples, Placement((0,)))
  places = one_per_row(np.arange(8), (8, 6, 4))
  whole = assembler(places, packed=True)
  size = 8 // count
  parts = [
    assembler(places.take(slice(i * size, (i + 1) * size)), packed=True)
    for i in range(count)
  ]
  for name, array in whole.items():
    np.testing.assert_array_equal(
      array, np.concatenate([part[name] for part in parts])
    )


SLOTTED = [7, FIRST_SOFT + 1, 8, FIRST_SOFT, FIRST_SOFT + 1, EOS]


@pytest.mark.parametrize("packed", [False, True])
def test_soft_tokens_of_a_text_take_the_virtual_tokens(packed):
  """And no others stand around it; texts without any have them around."""
  inputs = from_rows([np.array(SLOTTED), np.array([9, EOS])], np.int32)
  targets = from_rows([np.array([5, EOS])] * 2, np.int32)
  assembler = Assembler(inputs, targets, Placement((3,), (0,)), V)
  assert assembler.encoder_lengths().tolist() == [6, 4]
  places = ExamplePlaces(
    (1, 10, 4) if packed else (2, 6, 2),
    np.array([0, 1]),
    np.array([0, 0 if packed else 1]),
    np.array([0, 6 if packed else 0]),
    np.array([0, 2 if packed else 0]),
    np.array([1, 1 + packed]),
  )
  found = assembler(places, packed)["encoder_input_tokens"]
  filled = [7, V, 8, V + 3, V, EOS]
  around = [V + 3, 9, V, EOS]
  if packed:
    assert found.tolist() == [filled + around]
  else:
    assert found.tolist() == [filled, [*around, 0, 0]]


@pytest.mark.parametrize(
  ("placement", "error"),
  [
    (Placement((0, 1, 2)), "has 2 soft tokens, but the method makes 3 .* to 2"),
    (Placement(), "makes 0 .* choose a method that has virtual tokens"),
  ],
)
def test_soft_tokens_need_as_many_virtual_tokens(placement, error):
  rows = from_rows([np.array(SLOTTED)], np.int32)
  with pytest.raises(ValueError, match=error):
    Assembler(rows, rows, placement, V).encoder_lengths()
