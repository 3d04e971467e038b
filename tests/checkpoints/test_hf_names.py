"""The table between Hugging Face's names and T5X's."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.checkpoints import hf_names
from prompt_tuning.core import tree
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network


def test_the_table_is_a_bijection():
  assert len({row.hf for row in hf_names.TABLE}) == len(hf_names.TABLE)
  assert len({row.t5x for row in hf_names.TABLE}) == len(hf_names.TABLE)


@given(st.sampled_from(hf_names.TABLE), st.integers(0, 999))
def test_names_there_and_back(row, layer):
  hf, t5x = row.hf.format(layer), row.t5x.format(layer)
  assert hf_names.to_t5x(hf) == (t5x, row.transposed)
  assert hf_names.to_hf(t5x) == (hf, row.transposed)


@pytest.mark.parametrize("size", t5_config.SIZES)
def test_every_parameter_of_every_size_has_a_name(size):
  config = dataclasses.replace(
    t5_config.get(size), num_encoder_layers=2, num_decoder_layers=2
  )
  names = [
    hf_names.to_hf(path)
    for path in tree.flatten(network.abstract_params(config))
  ]
  assert all(names)
  assert len({name for name, _ in names}) == len(names)


@pytest.mark.parametrize(
  "name",
  [
    "",
    "shared",
    "encoder.block.x.layer.0.SelfAttention.q.weight",
    "encoder.block.00.layer.0.SelfAttention.q.weight",
    "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight",
    "encoder.block.1.layer.2.DenseReluDense.wo.weight",
    "encoder.block.1.layer.0.SelfAttention.q.bias",
    "encoder.block.{}.layer.0.SelfAttention.q.weight",
  ],
)
def test_unknown_names(name):
  assert hf_names.to_t5x(name) is None
  assert hf_names.unknown([name]) == [name]
