"""Hugging Face's layout, against transformers, which reads and writes it."""

import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prompt_tuning.checkpoints import (
  backbone,
  hf,
  hf_config,
  restore,
  sizes,
  t5x_writer,
)
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.core import axes, tree
from prompt_tuning.launch import main

TIED = {"mlp_activations": ("relu",), "logits_via_embedding": True}
EMPTY = np.zeros((1, 1), np.float32)
KERNEL = "encoder/layers_0/attention/query/kernel"


@pytest.fixture
def folder(checkpoints, tmp_path):
  """A copy of the tiny model that a test may damage."""
  return shutil.copytree(checkpoints["hf"], tmp_path / "model")


def configure(folder, **changes):
  """Change config.json; None takes a field away."""
  file = folder / "config.json"
  config = {**json.loads(file.read_text()), **changes}
  kept = {key: value for key, value in config.items() if value is not None}
  file.write_text(json.dumps(kept))


def retensor(folder, **changes):
  """Change tensors; None takes one away."""
  file = folder / "model.safetensors"
  tensors = {**load_file(file), **changes}
  kept = {key: value for key, value in tensors.items() if value is not None}
  save_file(kept, file, metadata={"format": "pt"})


def files_equal(a, b):
  """Compare all tensors of two folders, bit for bit."""
  ours, theirs = (
    {
      name: (array.dtype, array.shape, array.tobytes())
      for file in sorted(folder.glob("*.safetensors"))
      for name, array in load_file(file).items()
    }
    for folder in (a, b)
  )
  assert ours == theirs


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("changes", [{}, TIED], ids=["1.1", "1.0"])
def test_round_trip_through_t5x_is_bit_equal(tools, tmp_path, changes, dtype):
  config = dataclasses.replace(tools.config, **changes)
  flat = tools.random_params(config)
  leaves = restore.leaves_of(tree.unflatten(flat))
  first, t5x, second = (tmp_path / name for name in ("a", "checkpoint_0", "b"))
  hf.write_hf(first, leaves, config, dtype=np.dtype(dtype))
  t5x_writer.write_t5x(t5x, restore.open_checkpoint(first).params)
  middle = restore.open_checkpoint(t5x)
  hf.write_hf(second, middle.params, sizes.infer_config(middle))
  files_equal(first, second)
  assert json.loads((first / "config.json").read_text()) == (
    json.loads((second / "config.json").read_text())
  )


def test_shards(flat, tools, tmp_path, checkpoints):
  leaves = restore.leaves_of(tree.unflatten(flat))
  hf.write_hf(tmp_path / "m", leaves, tools.config, shard_bytes=2_000)
  files = sorted((tmp_path / "m").glob("*.safetensors"))
  assert len(files) > 3
  assert all(file.stat().st_size < 2_000 + 3_000 for file in files)  # + header
  files_equal(tmp_path / "m", checkpoints["hf"])
  checkpoint = restore.open_checkpoint(tmp_path / "m")
  for name, array in flat.items():
    np.testing.assert_array_equal(checkpoint.params[name].read(), array)


class TestDamagedShards:
  @pytest.fixture
  def shards(self, flat, tools, tmp_path):
    leaves = restore.leaves_of(tree.unflatten(flat))
    path = tmp_path / "shards"
    hf.write_hf(path, leaves, tools.config, shard_bytes=2_000)
    return path

  def edit(self, shards, change):
    file = shards / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    change(index["weight_map"])
    file.write_text(json.dumps(index))

  def test_a_missing_file(self, shards):
    next(shards.glob("*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match="a safetensors file"):
      restore.open_checkpoint(shards)

  def test_a_tensor_the_index_does_not_name(self, shards):
    name = "encoder.final_layer_norm.weight"  # not alone in its file
    self.edit(shards, lambda m: m.pop(name))
    with pytest.raises(CheckpointError, match=f"{name}.*not in the index"):
      restore.open_checkpoint(shards)

  def test_a_tensor_the_files_do_not_have(self, shards):
    self.edit(shards, lambda m: m.update(x=m["shared.weight"]))
    with pytest.raises(CheckpointError, match="x: expected a tensor in model-"):
      restore.open_checkpoint(shards)

  def test_a_file_elsewhere(self, shards):
    self.edit(shards, lambda m: m.update(x="../model.safetensors"))
    with pytest.raises(CheckpointError, match="expected files in its folder"):
      restore.open_checkpoint(shards)


class TestTables:
  """One table under several names, and when the head is one of them."""

  def test_equal_copies_are_one(self, folder, flat):
    table = flat["token_embedder/embedding"]
    retensor(
      folder,
      **{
        "encoder.embed_tokens.weight": table,
        "decoder.embed_tokens.weight": table,
      },
    )
    params = restore.open_checkpoint(folder).params
    assert params.keys() == flat.keys()
    read = params["token_embedder/embedding"].read()
    np.testing.assert_array_equal(read, table)

  def test_a_copy_alone_will_do(self, folder, flat):
    table = flat["token_embedder/embedding"]
    changes = {"shared.weight": None, "encoder.embed_tokens.weight": table}
    retensor(folder, **changes)
    params = restore.open_checkpoint(folder).params
    read = params["token_embedder/embedding"].read()
    np.testing.assert_array_equal(read, table)

  def test_different_copies(self, folder, flat, tools):
    table = flat["token_embedder/embedding"].copy()
    table[3, 3] += 1
    retensor(folder, **{"decoder.embed_tokens.weight": table})
    expected = "decoder.embed_tokens.weight differs from shared.weight"
    with pytest.raises(CheckpointError, match=expected):
      restore.restore(folder, tools.structs())

  def test_copies_of_other_shapes(self, folder, flat):
    table = flat["token_embedder/embedding"][:-1]
    retensor(folder, **{"decoder.embed_tokens.weight": table})
    with pytest.raises(CheckpointError, match=r"as shared.weight; found"):
      restore.open_checkpoint(folder)

  def test_no_table(self, folder):
    retensor(folder, **{"shared.weight": None})
    with pytest.raises(CheckpointError, match="the embedding table; found no"):
      restore.open_checkpoint(folder)

  def test_an_untied_head_must_be_there(self, folder):
    retensor(folder, **{"lm_head.weight": None})
    with pytest.raises(CheckpointError, match="says that the head is not tied"):
      restore.open_checkpoint(folder)

  def test_a_head_transformers_5_tied_unscaled(self, folder, flat, tools):
    retensor(folder, **{"lm_head.weight": None})
    scaled = {"tie_word_embeddings": True, "scale_decoder_outputs": False}
    configure(folder, **scaled)
    checkpoint = restore.open_checkpoint(folder)
    assert "copy of the embedding table" in checkpoint.notes[0]
    params = restore.restore(checkpoint, tools.structs())
    np.testing.assert_array_equal(
      params["decoder"]["logits_dense"]["kernel"],
      flat["token_embedder/embedding"].T,
    )

  def test_a_head_transformers_5_untied(self, folder, flat):
    scaled = {"tie_word_embeddings": True, "scale_decoder_outputs": False}
    configure(folder, **scaled)
    assert restore.open_checkpoint(folder).params.keys() == flat.keys()

  def test_a_tied_head_that_differs(self, folder, tools):
    configure(folder, tie_word_embeddings=True)
    config = dataclasses.replace(tools.config, logits_via_embedding=True)
    expected = "lm_head.weight differs from shared.weight"
    with pytest.raises(CheckpointError, match=expected):
      restore.restore(folder, tools.structs(config))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"model_type": "bart"}, "model_type: expected one of .'t5'"),
    ({"layer_norm_epsilon": 1e-5}, "layer_norm_epsilon"),
    ({"feed_forward_proj": "gated-tanh"}, "feed_forward_proj"),
  ],
)
def test_models_that_are_no_t5_of_ours(folder, changes, message):
  configure(folder, **changes)
  with pytest.raises(CheckpointError, match=message):
    restore.open_checkpoint(folder)


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize(
  ("key", "expected", "value"),
  [
    ("pad_token_id", 0, 1),
    ("pad_token_id", 0, -1),
    ("pad_token_id", 0, False),
    ("eos_token_id", 1, 2),
    ("eos_token_id", 1, [1, 2]),
    ("eos_token_id", 1, "1"),
    ("decoder_start_token_id", 0, 1),
    ("decoder_start_token_id", 0, [3]),
    ("forced_bos_token_id", None, 4),
  ],
)
def test_other_special_ids(folder, tmp_path, file, key, expected, value):
  """They loaded without a word, and `convert` wrote T5's over them."""
  target = folder / file
  config = json.loads(target.read_text()) if target.exists() else {}
  target.write_text(json.dumps({**config, key: value}))
  message = rf"{file}:{key}: expected {expected}, as in .*; found "
  message += re.escape(repr(value))
  with pytest.raises(CheckpointError, match=message):
    restore.open_checkpoint(folder)
  argv = ["convert", str(folder), str(tmp_path / "other"), "--to", "hf"]
  assert main.main(argv) == 2
  assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("value", [[1], None])
def test_the_usual_ids_in_other_words(folder, value):
  configure(folder, pad_token_id=None)  # takes it away
  (folder / "generation_config.json").write_text(
    json.dumps({"eos_token_id": value, "num_beams": 4})
  )
  assert restore.open_checkpoint(folder).params


def test_everything_that_does_not_fit_is_listed_at_once(folder):
  """A surplus, a renamed and a misshapen tensor: four mismatches."""
  whole = restore.open_checkpoint(folder)
  target = {
    path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    for path, leaf in whole.params.items()
  }
  kernel = "encoder.block.0.layer.0.SelfAttention.k.weight"
  retensor(
    folder,
    **{
      "classifier.weight": np.ones(3, np.float32),
      "encoder.final_layer_norm.weight": np.ones(3, np.float32),
      kernel: None,
      f"{kernel}s": whole.params[KERNEL.replace("query", "key")].read(),
    },
  )
  with pytest.raises(CheckpointError) as caught:
    restore.restore(folder, tree.unflatten(target))
  assert [m.path for m in caught.value.mismatches] == [
    "classifier.weight",
    "encoder.block.0.layer.0.SelfAttention.k.weights",
    "encoder/encoder_norm/scale",
    "encoder/layers_0/attention/key/kernel",
  ]


def test_a_config_that_contradicts_the_weights(folder):
  configure(folder, d_model=512, num_heads=77)
  with pytest.raises(CheckpointError) as caught:
    restore.open_checkpoint(folder)
  wrong = {m.path: m.found for m in caught.value.mismatches}
  assert wrong["config.json:d_model"] == "512"
  assert wrong["config.json:num_heads"] == "77"


def test_contradictions_are_listed_with_what_is_missing(folder, tools):
  configure(folder, d_model=512)
  name = "encoder.final_layer_norm.weight"
  retensor(folder, **{name: None, "decoder.embed_tokens.weight": EMPTY})
  with pytest.raises(CheckpointError) as caught:
    restore.restore(folder, tools.structs())
  assert [m.path for m in caught.value.mismatches] == [
    "config.json:d_model",
    "decoder.embed_tokens.weight",
    "encoder/encoder_norm/scale",
  ]


def test_a_layer_too_few_is_no_smaller_model(folder):
  tensors = load_file(folder / "model.safetensors")
  last = [n for n in tensors if n.startswith("decoder.block.2.")]
  retensor(folder, **dict.fromkeys(last))
  with pytest.raises(CheckpointError, match="num_decoder_layers: expected 2"):
    restore.open_checkpoint(folder)


def test_another_kind_of_model_is_refused_at_once(folder):
  (folder / "model.safetensors").unlink()
  tensors = {"bert.encoder.weight": np.ones(3, np.float32)}
  save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
  with pytest.raises(CheckpointError, match="No tensor of a T5 has this"):
    restore.open_checkpoint(folder)


def test_integers_are_refused(folder):
  retensor(folder, **{"shared.weight": np.ones((24, 8), np.int32)})
  with pytest.raises(CheckpointError, match="dtype I32"):
    restore.open_checkpoint(folder)


def test_an_early_versions_unused_tensor_is_noted(folder, flat):
  name = (
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
  )
  retensor(folder, **{name: np.ones((6, 4), np.float32)})
  checkpoint = restore.open_checkpoint(folder)
  assert checkpoint.params.keys() == flat.keys()
  assert name in checkpoint.notes[0]


@pytest.mark.parametrize(
  ("said", "expected"),
  [
    ("google/t5-v1_1-small", "google/t5-v1_1-small"),
    ("/home/somebody/t5", "PATH"),  # as the published ones do
    ("./t5", "PATH"),
    ("", "PATH"),
    (None, "PATH"),
    (7, "PATH"),
  ],
)
def test_what_transformers_loads_it_by(said, expected):
  config = {"_name_or_path": said} if said is not None else {}
  assert hf_config.base_model(config, "PATH") == expected
  assert hf_config.base_model(None, "PATH") is None


def test_a_restored_model_says_what_transformers_loads_it_by(
  folder, checkpoints, tools
):
  arguments = (tools.config, None, axes.STANDARD_RULES, "float32")
  assert backbone.load(folder, *arguments).base_model == str(folder)
  assert backbone.load(checkpoints["t5x"], *arguments).base_model is None


def test_a_pickle_is_never_opened(folder):
  (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
  with pytest.raises(CheckpointError, match="pickles, which are never opened"):
    restore.open_checkpoint(folder)


def test_a_parameter_hugging_face_has_no_name_for(flat, tools, tmp_path):
  prompt = {"encoder/prompt/prompt/prompt": np.ones((3, 8), np.float32)}
  leaves = restore.leaves_of(tree.unflatten({**flat, **prompt}))
  with pytest.raises(CheckpointError, match="has no such tensor"):
    hf.write_hf(tmp_path / "m", leaves, tools.config)
  assert not (tmp_path / "m").exists()


def test_configuration_there_and_back(folder, tools):
  checkpoint = restore.open_checkpoint(folder)
  assert sizes.infer_config(checkpoint) == tools.config
  configure(folder, relative_attention_max_distance=99, dropout_rate=0.25)
  config = sizes.infer_config(restore.open_checkpoint(folder))
  assert (config.relpos_max_distance, config.dropout_rate) == (99, 0.25)


@pytest.mark.parity
class TestTransformers:
  """transformers is the authority on its own format."""

  @pytest.fixture(params=[{}, TIED], ids=["1.1", "1.0"])
  def config(self, request, tools):
    pytest.importorskip("torch", reason="parity needs the test extra")
    return dataclasses.replace(tools.config, **request.param)

  def model(self, config):
    import torch
    import transformers

    gated = config.mlp_activations == ("gelu", "linear")
    model = transformers.T5ForConditionalGeneration(
      transformers.T5Config(
        vocab_size=config.vocab_size,
        d_model=config.emb_dim,
        d_kv=config.head_dim,
        d_ff=config.mlp_dim,
        num_layers=config.num_encoder_layers,
        num_decoder_layers=config.num_decoder_layers,
        num_heads=config.num_heads,
        relative_attention_num_buckets=config.relpos_buckets,
        feed_forward_proj="gated-gelu" if gated else "relu",
        tie_word_embeddings=config.logits_via_embedding,
      )
    )
    if not config.logits_via_embedding:
      model.config.tie_word_embeddings = False  # forced to True when built
      fresh = torch.randn_like(model.lm_head.weight)
      model.lm_head.weight = torch.nn.Parameter(fresh)
    return model

  @pytest.mark.parametrize("sharded", [False, True])
  def test_we_read_what_it_writes(self, config, tmp_path, sharded):
    model = self.model(config)
    limit = {"max_shard_size": "3KB"} if sharded else {}
    model.save_pretrained(tmp_path, **limit)
    assert sharded == (tmp_path / "model.safetensors.index.json").exists()
    checkpoint = restore.open_checkpoint(tmp_path)
    assert sizes.infer_config(checkpoint) == config
    state = model.state_dict()
    params = checkpoint.params
    query = state["decoder.block.1.layer.1.EncDecAttention.q.weight"].numpy()
    name = "decoder/layers_1/encoder_decoder_attention/query/kernel"
    np.testing.assert_array_equal(params[name].read(), query.T)
    table = state["shared.weight"].numpy()
    read = params["token_embedder/embedding"].read()
    np.testing.assert_array_equal(read, table)
    sizes_equal = sum(x.size for x in params.values()) == model.num_parameters()
    assert sizes_equal

  @pytest.mark.parametrize("shard_bytes", [10**9, 3_000])
  def test_it_reads_what_we_write(self, config, tools, tmp_path, shard_bytes):
    import transformers

    leaves = restore.leaves_of(tree.unflatten(tools.random_params(config)))
    path = tmp_path / "m"
    hf.write_hf(path, leaves, config, shard_bytes=shard_bytes)
    load = transformers.T5ForConditionalGeneration.from_pretrained
    model, report = load(path, output_loading_info=True)
    assert not any(report.values()), report
    assert model.config.scale_decoder_outputs == config.logits_via_embedding
    state = {k: v.numpy() for k, v in model.state_dict().items()}
    written = {
      name: array
      for file in path.glob("*.safetensors")
      for name, array in load_file(file).items()
    }
    for name, array in written.items():
      np.testing.assert_array_equal(state.pop(name), array, err_msg=name)
    table = written["shared.weight"]
    for name, array in state.items():  # whatever is left is the same table
      np.testing.assert_array_equal(array, table, err_msg=name)

  def test_there_and_back_is_bit_equal(self, config, tmp_path):
    model = self.model(config)
    model.save_pretrained(tmp_path / "theirs")
    t5x_writer.write_t5x(
      tmp_path / "checkpoint_0",
      restore.open_checkpoint(tmp_path / "theirs").params,
    )
    middle = restore.open_checkpoint(tmp_path / "checkpoint_0")
    hf.write_hf(tmp_path / "ours", middle.params, sizes.infer_config(middle))
    files_equal(tmp_path / "theirs", tmp_path / "ours")
