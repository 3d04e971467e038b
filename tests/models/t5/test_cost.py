"""What a model costs: counted leaf by leaf, and by the formula."""

import dataclasses
import functools
import itertools
import math

import numpy as np
import pytest

from prompt_tuning.core import tree
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import cost, network

LADDER = [f"ladder_{rung}" for rung in range(1, 6)]
SIZES = [*LADDER, "t5_1_1_small", "t5_1_0_small", "mt5_small"]


def formula(config):
  """Count a T5 by hand: matrices, norm scales, two tables of positions."""
  H, inner = config.emb_dim, config.num_heads * config.head_dim
  attention = 4 * H * inner
  mlp = (len(config.mlp_activations) + 1) * H * config.mlp_dim
  positions = config.relpos_buckets * config.num_heads
  table = config.vocab_size * H
  return {
    "encoder": config.num_encoder_layers * (attention + mlp + 2 * H)
    + positions
    + H,
    "decoder": config.num_decoder_layers * (2 * attention + mlp + 3 * H)
    + positions
    + H,
    "head": 0 if config.logits_via_embedding else table,
    "table": table,
  }


@functools.cache
def counted(size):
  """Each size once: shapes of eight layers take a second."""
  return cost.count_parameters(t5_config.get(size))


@pytest.mark.parametrize("size", SIZES)
def test_counts_are_the_formula_and_the_leaves(size):
  config = t5_config.get(size)
  counts = counted(size)
  assert counts == formula(config)
  leaves = tree.flatten(network.abstract_params(config)).values()
  assert sum(counts.values()) == sum(math.prod(leaf.shape) for leaf in leaves)


def test_scanned_layers_cost_the_same():
  scanned = t5_config.get("ladder_3", scan_layers=True)
  assert cost.count_parameters(scanned) == counted("ladder_3")


@pytest.mark.parametrize("size", ["ladder_1", "t5_1_0_small"])
def test_operations_per_token(size):
  """6 per parameter and token, 4 where it is frozen; a tied head counts."""
  config = t5_config.get(size)
  parts = formula(config)
  head = parts["head"] or parts["table"]
  assert head == config.vocab_size * config.emb_dim
  decoder = parts["decoder"] + head
  assert cost.flops_per_token(config) == (6 * parts["encoder"], 6 * decoder)
  assert cost.flops_per_token(config, frozen=True) == (
    4 * parts["encoder"],
    4 * decoder,
  )


def test_the_ladder_spans_two_orders_of_magnitude():
  sizes = []
  for name in LADDER:
    counts = counted(name)
    sizes.append(counts["encoder"] + counts["decoder"])
  assert sizes[-1] >= 100 * sizes[0]
  steps = [b / a for a, b in itertools.pairwise(sizes)]
  assert all(2 < step < 5 for step in steps), "no rung is left out"


def test_the_last_rung_is_t5_1_1_small_but_for_its_vocabulary():
  small = t5_config.get("t5_1_1_small", vocab_size=4_096)
  assert t5_config.get("ladder_5") == small


def test_memory_of_long_inputs(caplog, tolerance):
  """One text of 8,000 words was seen to take 6.5 GB, in turns or alone."""
  config = t5_config.get("ladder_1")
  turns = dataclasses.replace(config, attention_bytes=8 << 20)
  found = [
    cost.attention_bytes(config, 1, 8_192),
    cost.attention_bytes(turns, 9, 8_192),
    cost.attention_bytes(config, 9, 8_192),
  ]
  np.testing.assert_allclose(found, [6.5e9, 6.5e9, 45e9], **tolerance["size"])
  cost.warn_of_length(turns, 32, 512)
  assert not caplog.text
  for _ in range(2):
    cost.warn_of_length(turns, 9, 8_192)
  (record,) = caplog.records
  assert "8,192 tokens: attention over such a batch takes about 6.4 GB" in (
    record.getMessage()
  )
