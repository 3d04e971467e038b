"""Prompt adapters, against PEFT, which writes and reads them."""

import json
import os
import pathlib

import jax
import numpy as np
import pytest
from flax.core import meta
from safetensors.numpy import load_file, save_file

from prompt_tuning.checkpoints import peft, restore
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.tuners import discovery, initializers
from prompt_tuning.tuners.method import Inputs
from tests import old_peft

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
VALUES = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
  """An adapter that a test may damage."""
  path = tmp_path / "adapter"
  peft.write_vectors(path, VALUES)
  return path


def configure(folder, **changes):
  """Change adapter_config.json."""
  file = folder / "adapter_config.json"
  config = json.loads(file.read_text())
  file.write_text(json.dumps({**config, **changes}))


def save(folder, **tensors):
  """Replace the tensors."""
  save_file(tensors, folder / "adapter_model.safetensors")


def test_there_and_back(folder):
  assert restore.holds_prompt(folder)
  prompt = restore.open_prompt(folder)
  assert (prompt.format, prompt.notes) == ("peft", ())
  assert prompt.values.tobytes() == VALUES.tobytes()


def test_what_is_recorded_about_the_backbone(tmp_path):
  model = t5_config.get("t5_1_1_tiny", emb_dim=8)
  peft.write_vectors(
    tmp_path / "a", VALUES, model=model, base_model="google/t5-v1_1-base"
  )
  config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
  assert config["num_attention_heads"] == 2
  assert config["num_layers"] == 2
  assert config["base_model_name_or_path"] == "google/t5-v1_1-base"
  assert config["num_transformer_submodules"] == 1
  with pytest.raises(CheckpointError, match=r"\[P, 512\]; found \[5, 8\]"):
    peft.write_vectors(
      tmp_path / "b", VALUES, model=t5_config.get("t5_1_1_small")
    )
  assert os.listdir(tmp_path) == ["a"]


def test_the_dead_half_is_left_out_and_said_so(folder):
  save(folder, prompt_embeddings=np.concatenate([VALUES, VALUES + 9]))
  configure(folder, num_transformer_submodules=2)
  prompt = restore.open_prompt(folder)
  np.testing.assert_array_equal(prompt.values, VALUES)
  assert "first 5 of 10 rows" in prompt.notes[0]


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"peft_type": "OFT"}, "peft_type: expected one of .*found 'OFT'"),
    ({"peft_type": "LORA"}, "LORA with .*an array prompt_embeddings"),
    ({"peft_type": ["LORA"]}, "peft_type"),
    ({"modules_to_save": ["lm_head"]}, r"modules_to_save = \['lm_head'\]"),
    ({"task_type": "CAUSAL_LM"}, "task_type"),
    (
      {"num_virtual_tokens": 0},
      "num_virtual_tokens: expected a whole number",
    ),
    ({"num_virtual_tokens": "5"}, "found '5'"),
    ({"token_dim": None}, "token_dim"),
    ({"num_virtual_tokens": 4}, r"\[4, 8\] or \[8, 8\]; found \[5, 8\]"),
    ({"token_dim": 16}, r"\[5, 16\] or \[10, 16\]"),
  ],
)
def test_refused_configurations(folder, changes, message):
  configure(folder, **changes)
  with pytest.raises(CheckpointError, match=message):
    restore.open_prompt(folder)


def test_refused_tensors(folder):
  save(folder, prompt_embeddings=VALUES, prefix_task_rows=VALUES)
  with pytest.raises(CheckpointError, match="an array prefix_task_rows"):
    restore.open_prompt(folder)
  save(folder, something=VALUES)
  with pytest.raises(CheckpointError, match="an array something"):
    restore.open_prompt(folder)
  save(folder, prompt_embeddings=np.ones((5, 8), np.int32))
  with pytest.raises(CheckpointError, match="floating point"):
    restore.open_prompt(folder)
  (folder / "adapter_model.safetensors").unlink()
  with pytest.raises(CheckpointError, match="a safetensors file"):
    restore.open_prompt(folder)


def test_a_pickled_adapter_is_never_opened(folder):
  file = folder / "adapter_model.safetensors"
  file.rename(folder / "adapter_model.bin")
  with pytest.raises(CheckpointError, match="a pickle, which is never opened"):
    restore.open_prompt(folder)


@pytest.mark.parametrize("seed", ["seed0", "seed1"])
def test_the_bytes_are_those_of_earlier_versions(seed, tmp_path):
  before = GOLDEN / "before_methods" / "before_text" / "exports" / seed
  model = t5_config.get("ladder_1")
  peft.write_vectors(
    tmp_path / "a", np.load(before / "prompt.npy"), model=model
  )
  old, new = before / "peft", tmp_path / "a"
  assert (new / peft.WEIGHTS).read_bytes() == (old / peft.WEIGHTS).read_bytes()
  # Less these, which were null, and which older versions of PEFT refuse.
  theirs = json.loads((old / peft.CONFIG).read_text())
  for name in ("modules_to_save", "peft_version", "tokenizer_kwargs"):
    del theirs[name]
  assert json.loads((new / peft.CONFIG).read_text()) == theirs


@pytest.mark.parametrize(
  "kind", ["PROMPT_TUNING", "PREFIX_TUNING", "LORA", "IA3"]
)
def test_old_versions_know_every_setting(kind, tmp_path):
  shape = t5_config.get("ladder_1").shape
  settings = {"emb_dim": 4, "encoder_length": 3}
  settings["encoder_init"] = initializers.Uniform()
  if kind != "PROMPT_TUNING":
    settings = {"shape": shape}
  if kind == "PREFIX_TUNING":
    settings |= {"sites": ("dec_self",), "positions": True}
  method = discovery.for_peft()[kind](**settings)
  shapes = jax.eval_shape(lambda: method.init(jax.random.key(0), Inputs()))
  params = jax.tree.map(lambda leaf: np.ones(leaf.shape, "f4"), shapes)
  delta = jax.tree.map(
    lambda leaf: leaf[None], method.apply(meta.unbox(params), Inputs())
  )
  adapter = method.to_peft(delta)
  peft.write_adapter(tmp_path / "a", adapter, base_model="google/t5-v1_1-small")
  written = json.loads((tmp_path / "a" / peft.CONFIG).read_text())
  assert written["peft_type"] == kind
  assert written["base_model_name_or_path"] == "google/t5-v1_1-small"
  assert written.keys() <= old_peft.KNOWN[kind]


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
class TestPeft:
  """PEFT is the authority on its own format."""

  @pytest.fixture
  def backbone(self):
    torch = pytest.importorskip("torch", reason="parity needs the test extra")
    pytest.importorskip("peft", reason="parity needs the test extra")
    import transformers

    torch.manual_seed(0)
    config = transformers.T5Config(
      vocab_size=24,
      d_model=8,
      d_kv=3,
      d_ff=16,
      num_layers=2,
      num_heads=4,
      decoder_start_token_id=0,
    )
    return transformers.T5ForConditionalGeneration(config).eval()

  def logits(self, model):
    import torch

    ids = torch.arange(2, 14).reshape(2, 6)
    with torch.no_grad():
      output = model(
        input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids
      )
    return output.logits.numpy()

  @pytest.mark.parametrize("submodules", [1, 2])
  def test_we_read_what_it_writes_and_it_reads_what_we_write(
    self, backbone, tmp_path, submodules
  ):
    import copy

    from peft import PeftModel, PromptTuningConfig, get_peft_model

    config = PromptTuningConfig(
      task_type="SEQ_2_SEQ_LM",
      num_virtual_tokens=5,
      num_transformer_submodules=submodules,
    )
    theirs = get_peft_model(copy.deepcopy(backbone), config).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    saved = load_file(tmp_path / "theirs" / "adapter_model.safetensors")
    assert saved["prompt_embeddings"].shape == (5 * submodules, 8)
    prompt = restore.open_prompt(tmp_path / "theirs")
    np.testing.assert_array_equal(prompt.values, saved["prompt_embeddings"][:5])
    peft.write_vectors(tmp_path / "ours", prompt.values)
    ours = PeftModel.from_pretrained(backbone, tmp_path / "ours").eval()
    np.testing.assert_array_equal(self.logits(ours), self.logits(theirs))

  def test_every_field_it_writes_is_written_here(self, backbone, tmp_path):
    from peft import PromptTuningConfig, get_peft_model

    config = PromptTuningConfig(
      task_type="SEQ_2_SEQ_LM",
      num_virtual_tokens=5,
      num_transformer_submodules=1,
    )
    get_peft_model(backbone, config).save_pretrained(tmp_path / "theirs")
    model = t5_config.T5Config(emb_dim=8, num_heads=4, num_decoder_layers=2)
    peft.write_vectors(tmp_path / "ours", VALUES, model=model)
    theirs, ours = (
      json.loads((tmp_path / name / "adapter_config.json").read_text())
      for name in ("theirs", "ours")
    )
    # All that says something, of what older versions take too.
    newer = {name: theirs.pop(name) for name in theirs.keys() - ours.keys()}
    assert newer.pop("peft_version")
    assert newer == {"modules_to_save": None, "tokenizer_kwargs": None}
    assert ours == theirs
