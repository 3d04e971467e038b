"""Which model a checkpoint holds, told from its shapes."""

import dataclasses

import numpy as np
import pytest

from prompt_tuning.checkpoints import sizes
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.checkpoints.source import ArrayLeaf, Checkpoint
from prompt_tuning.core import tree
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network


def opened(config):
  """A checkpoint that has shapes only."""
  shapes = tree.flatten(network.abstract_params(config))
  params = {
    path: ArrayLeaf(path, x.shape, np.dtype(x.dtype), None)
    for path, x in shapes.items()
  }
  return Checkpoint("path", "t5x", params)


@pytest.mark.parametrize("size", t5_config.SIZES)
def test_every_published_shape_is_told_apart(size):
  # Two layers: describing 48 takes a second.
  few = {"num_encoder_layers": 2, "num_decoder_layers": 2}
  config = t5_config.get(size, **few)
  inferred = sizes.infer_config(opened(config))
  assert inferred == config
  published = {f: getattr(t5_config.get(size), f) for f in few}
  assert sizes.size_name(dataclasses.replace(inferred, **published)) == size


@pytest.mark.parametrize("size", ["t5_1_1_small", "t5_1_0_small", "mt5_small"])
def test_published_sizes_are_recognised(size):
  inferred = sizes.infer_config(opened(t5_config.get(size)))
  assert inferred == t5_config.get(size)
  assert sizes.size_name(inferred) == size


def test_an_unpublished_size():
  config = t5_config.T5Config(
    vocab_size=50,
    emb_dim=6,
    num_heads=3,
    head_dim=5,
    mlp_dim=7,
    num_encoder_layers=1,
    num_decoder_layers=4,
    relpos_buckets=9,
  )
  assert sizes.infer_config(opened(config)) == config
  assert sizes.size_name(config) is None


def test_what_is_no_t5():
  params = opened(t5_config.get("t5_1_1_tiny")).params
  kept = {k: v for k, v in params.items() if "relpos" not in k}
  name = "token_embedder/embedding"
  kept[name] = dataclasses.replace(kept[name], shape=(3,))
  with pytest.raises(CheckpointError) as caught:
    sizes.infer_config(Checkpoint("path", "t5x", kept))
  assert [m.path for m in caught.value.mismatches] == [
    name,
    "encoder/relpos_bias/rel_embedding",
  ]
