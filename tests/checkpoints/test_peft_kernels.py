"""Adapters of kernels as files: names, and everything that is refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prompt_tuning.checkpoints import peft, peft_names, restore
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.core.delta import Delta, LowRank
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.tuners.lora import LoRA

SHAPE = t5_config.get("t5_1_1_tiny").shape  # two layers, H = N D = 4
SELF = "base_model.model.encoder.block.0.layer.0.SelfAttention.q.lora_A.weight"


def lora(kernels=("query", "value")):
  """A LoRA and the delta of a run, from numpy alone."""
  rng = np.random.default_rng(0)
  method = LoRA(SHAPE, 2, kernels=kernels)
  lowrank = {}
  for site in SHAPE.kernels():
    if site.split("/")[1] in kernels or site in kernels:
      inputs, outputs = SHAPE.kernels()[site]
      a, b = (1, 2, inputs, 2), (1, 2, 2, outputs)
      lowrank[site] = LowRank(rng.normal(size=a), rng.normal(size=b))
  return method, Delta(lowrank=lowrank)


@pytest.fixture
def folder(tmp_path):
  """An adapter that a test may damage."""
  method, delta = lora()
  peft.write_adapter(tmp_path / "adapter", method.to_peft(delta))
  return tmp_path / "adapter"


def configure(folder, **changes):
  file = folder / peft.CONFIG
  config = json.loads(file.read_text())
  file.write_text(json.dumps({**config, **changes}))


def rewrite(folder, change):
  file = folder / peft.WEIGHTS
  tensors = load_file(file)
  change(tensors)
  save_file(tensors, file)


def test_every_kernel_has_a_name_and_back():
  for model in ("t5_1_1_small", "t5_1_0_small"):
    modules = peft_names.modules(t5_config.get(model).shape)
    assert len(set(modules.values())) == len(modules)
    for (site, layer), name in modules.items():
      key = f"base_model.model.{name}.lora_A.weight"
      assert peft_names.parse(key) == (site, layer, "lora_A.weight")
  assert peft_names.module("cross/out", 3) == (
    "decoder.block.3.layer.1.EncDecAttention.o"
  )
  for key in ("base_model.model.lm_head.weight", "encoder.block.0.q.x", ""):
    assert peft_names.parse(key) is None


def test_there_and_back(folder, tolerance):
  method, delta = peft.read(folder, SHAPE)
  ours, theirs = lora()
  assert method == ours.clone(kernels=tuple(sorted(theirs.lowrank)))
  for site, update in theirs.lowrank.items():
    for array, other in zip(update, delta.lowrank[site], strict=True):
      np.testing.assert_allclose(array, other, **tolerance["arithmetic"])


@pytest.mark.parametrize(
  ("kernels", "targets"),
  [
    (("query", "value", "wo"), ["q", "v", "wo"]),
    (
      ("enc_self/out",),
      [f"encoder.block.{i}.layer.0.SelfAttention.o" for i in (0, 1)],
    ),
    (("key", "enc_self/out"), None),
  ],
)
def test_modules_are_named_as_shortly_as_possible(kernels, targets, tmp_path):
  method, delta = lora(kernels)
  peft.write_adapter(tmp_path / "a", method.to_peft(delta))
  config = json.loads((tmp_path / "a" / peft.CONFIG).read_text())
  if targets:
    assert config["target_modules"] == targets
  assert config["r"] == 2
  assert config["task_type"] == "SEQ_2_SEQ_LM"
  assert set(peft.read(tmp_path / "a", SHAPE)[1].lowrank) == set(delta.lowrank)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"use_dora": True}, "LORA with use_dora = True is not"),
    ({"rank_pattern": {"q": 4}}, "rank_pattern"),
    ({"alpha_pattern": {"q": 4}}, "alpha_pattern"),
    ({"fan_in_fan_out": True}, "fan_in_fan_out"),
    ({"bias": "lora_only"}, "bias = 'lora_only'"),
    ({"lora_bias": True, "use_dora": True}, "lora_bias = True, use_dora"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'"),
    ({"an_option_of_tomorrow": 1}, "an_option_of_tomorrow = 1"),
    ({"r": 3}, "has the rank 2, but r is 3"),
    ({"r": "2"}, "r: expected a whole number, 1 or more; found '2'"),
    ({"lora_alpha": None}, "lora_alpha: expected a finite number; found None"),
    ({"lora_alpha": -1}, "LORA_ALPHA"),
    ({"task_type": "CAUSAL_LM"}, "task_type"),
    ({"peft_type": "LOHA"}, "peft_type: expected one of"),
  ],
)
def test_refused_configurations(folder, changes, message):
  configure(folder, **changes)
  with pytest.raises(CheckpointError, match=message):
    peft.read(folder, SHAPE)


def test_harmless_configurations(folder):
  configure(
    folder,
    lora_dropout=0.1,
    init_lora_weights="gaussian",
    revision="main",
    use_dora=False,
    rank_pattern={},
    loftq_config={},
    megatron_core="megatron.core",
    runtime_config={"ephemeral_gpu_offload": False},
  )
  peft.read(folder, SHAPE)


def _lose_layer(tensors):
  for name in [n for n in tensors if "block.1.layer.0.SelfAttention.q" in n]:
    del tensors[name]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda t: t.pop(SELF), "layer 0 has lora_B.weight; expected"),
    (_lose_layer, r"encoder.block.1.layer.0.SelfAttention.q: expected its arr"),
    (lambda t: t.update({SELF: t[SELF][:1]}), r"several shapes|the rank 1"),
    (lambda t: t.update({SELF: t[SELF] + np.nan}), "finite numbers"),
    (lambda t: t.update({SELF: t[SELF].ravel()}), "expected a matrix"),
    (
      lambda t: t.update({SELF.replace("block.0", "block.7"): t[SELF]}),
      "enc_self/query of layer 7 has lora_A.weight",
    ),
    (
      lambda t: t.update({"base_model.model.lm_head.weight": t[SELF]}),
      "lm_head.weight: expected an array for a kernel",
    ),
    (lambda t: t.update({"prompt_embeddings": t[SELF]}), "prompt_embeddings"),
    (
      lambda t: t.update({SELF.replace("A.weight", "magnitude"): t[SELF]}),
      "lora_magnitude",
    ),
    (lambda t: t.clear(), "its arrays, as target_modules says"),
  ],
)
def test_refused_arrays(folder, change, message):
  rewrite(folder, change)
  with pytest.raises(CheckpointError, match=message):
    peft.read(folder, SHAPE)


def test_a_layer_that_the_model_has_not(folder):
  def move(tensors):
    for name in [n for n in tensors if "block.1" in n]:
      tensors[name.replace("block.1", "block.2")] = tensors.pop(name)

  rewrite(folder, move)
  configure(folder, target_modules=".*")
  with pytest.raises(CheckpointError, match="of layer 2; the model has 2"):
    peft.read(folder, SHAPE)


def test_layers_without_arrays_are_left_as_they_are(folder):
  rewrite(folder, _lose_layer)
  configure(folder, target_modules=r".*\.(q|v)")
  _, delta = peft.read(folder, SHAPE)
  assert np.any(delta.lowrank["enc_self/query"].b[0, 0])
  assert not np.any(delta.lowrank["enc_self/query"].b[0, 1])


def test_where_vectors_are_wanted_it_is_refused(folder):
  with pytest.raises(CheckpointError, match="vectors before the text; found a"):
    restore.open_prompt(folder)
  with pytest.raises(CheckpointError, match="a PEFT adapter, not a"):
    restore.open_checkpoint(folder)


def test_only_an_adapter_is_replaced(folder, tmp_path):
  method, delta = lora()
  peft.write_adapter(folder, method.to_peft(delta), overwrite=True)
  other = tmp_path / "other"
  other.mkdir()
  (other / "thesis.txt").write_text("")
  with pytest.raises(CheckpointError, match="something to replace"):
    peft.write_adapter(other, method.to_peft(delta), overwrite=True)
