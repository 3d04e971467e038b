"""Which model a checkpoint holds, told from its shapes."""

import dataclasses

import numpy as np
import pytest

from prompt_tuning.checkpoints import sizes
from prompt_tuning.checkpoints.errors import CheckpointError, Mismatch
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


@pytest.mark.parametrize(
  "gone",
  [
    "encoder/layers_0/mlp/wi_0/kernel",
    "decoder/logits_dense/kernel",
    "decoder/layers_1/",
  ],
)
def test_damage_does_not_make_it_another_model(gone):
  """A damaged leaf was there; without it, the shapes are another variant's."""
  config = t5_config.get("t5_1_1_tiny")
  whole = opened(config)
  params = {k: v for k, v in whole.params.items() if not k.startswith(gone)}
  assert sizes.infer_config(Checkpoint("path", "t5x", params)) != config
  broken = tuple(
    Mismatch(name, "an array", "half of one")
    for name in whole.params
    if name not in params
  )
  damaged = Checkpoint("path", "t5x", params, broken=broken)
  assert sizes.infer_config(damaged) == config


def test_sizes_need_their_leaves_whole():
  whole = opened(t5_config.get("t5_1_1_tiny"))
  name = "token_embedder/embedding"
  broken = (
    Mismatch(name, "an array", "half of one"),
    Mismatch("decoder/decoder_norm/scale", "an array", "half of one"),
  )
  wrong = {mismatch.path for mismatch in broken}
  params = {k: v for k, v in whole.params.items() if k not in wrong}
  with pytest.raises(CheckpointError) as caught:
    sizes.infer_config(Checkpoint("path", "t5x", params, broken=broken))
  assert caught.value.mismatches == broken


HF_TINY = {  # what transformers calls the sizes of the tiny model
  "vocab_size": 32128,
  "d_model": 4,
  "d_kv": 2,
  "d_ff": 8,
  "num_heads": 2,
  "num_layers": 2,
  "num_decoder_layers": 2,
  "relative_attention_num_buckets": 4,
}


@pytest.mark.parametrize("field", HF_TINY)
def test_contradictions(field):
  params = opened(t5_config.get("t5_1_1_tiny")).params
  assert sizes.contradictions(HF_TINY, params) == []
  for said in (HF_TINY[field] + 1, str(HF_TINY[field])):
    wrong = sizes.contradictions({**HF_TINY, field: said}, params)
    found = {m.path.removeprefix("config.json:"): m.found for m in wrong}
    if field == "d_kv" and isinstance(said, int):
      assert found == {"num_heads x d_kv": str(2 * said)}
    elif field == "num_heads" and isinstance(said, int):
      assert found == {field: str(said), "num_heads x d_kv": str(2 * said)}
    elif field != "d_kv":
      assert found == {field: repr(said)}
    without = {k: v for k, v in HF_TINY.items() if k != field}
    assert sizes.contradictions(without, params) == []


def test_decoders_are_as_deep_as_encoders_unless_said_otherwise():
  config = t5_config.get("t5_1_1_tiny", num_decoder_layers=1)
  said = {**HF_TINY, "num_decoder_layers": None}
  (wrong,) = sizes.contradictions(said, opened(config).params)
  assert wrong.path == "config.json:num_decoder_layers"


def test_nothing_is_told_from_leaves_that_are_not_there():
  assert sizes.contradictions({**HF_TINY, "num_layers": 0}, {}) == [
    Mismatch(
      "config.json:num_decoder_layers", "0, as the weights have", repr(2)
    )
  ]
