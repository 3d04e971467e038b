"""A random Hugging Face T5 and the same weights in T5X's tree."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.models.t5 import config as t5_config

# heads * head_dim != d_model, as in T5 1.1 small; a small vocabulary.
TINY = t5_config.T5Config(
  vocab_size=256,
  emb_dim=32,
  num_heads=3,
  head_dim=8,
  mlp_dim=48,
  num_encoder_layers=2,
  num_decoder_layers=2,
)
# The real T5 1.1 small shape, table included.
SMALL = t5_config.get("t5_1_1_small")


def _torch_t5(config: t5_config.T5Config, seed: int):
  torch = pytest.importorskip("torch", reason="parity needs the test extra")
  transformers = pytest.importorskip("transformers")
  torch.manual_seed(seed)
  hf_config = transformers.T5Config(
    vocab_size=config.vocab_size,
    d_model=config.emb_dim,
    d_kv=config.head_dim,
    d_ff=config.mlp_dim,
    num_layers=config.num_encoder_layers,
    num_decoder_layers=config.num_decoder_layers,
    num_heads=config.num_heads,
    relative_attention_num_buckets=config.relpos_buckets,
    relative_attention_max_distance=config.relpos_max_distance,
    feed_forward_proj=(
      "gated-gelu" if len(config.mlp_activations) == 2 else "relu"
    ),
    decoder_start_token_id=0,
    pad_token_id=0,
    eos_token_id=1,
  )
  model = transformers.T5ForConditionalGeneration(hf_config).eval()
  if not config.logits_via_embedding:
    # transformers 5 forces a tied head; untying also splits the tables, so
    # they are made equal again, and the tied head's 1/sqrt(H) goes.
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(
      torch.randn_like(model.shared.weight) * config.emb_dim**-0.5
    )
    model.encoder.embed_tokens = model.shared
    model.decoder.embed_tokens = model.shared
    if hasattr(model.config, "scale_decoder_outputs"):
      model.config.scale_decoder_outputs = False
  # Random norms too: ones would hide a missing scale.
  with torch.no_grad():
    for name, weight in model.named_parameters():
      if "layer_norm" in name:
        weight.copy_(1 + 0.2 * torch.randn_like(weight))
  return model


def to_t5x(state: dict, config: t5_config.T5Config) -> dict:
  """Rename and transpose by hand; independent of checkpoints/hf.py."""

  def get(name):
    return jnp.asarray(state[name].detach().numpy())

  def attention(prefix):
    names = {"q": "query", "k": "key", "v": "value", "o": "out"}
    return {
      t5x: {"kernel": get(f"{prefix}.{hf}.weight").T}
      for hf, t5x in names.items()
    }

  def mlp(prefix):
    gated = len(config.mlp_activations) == 2
    names = ["wi_0", "wi_1", "wo"] if gated else ["wi", "wo"]
    return {n: {"kernel": get(f"{prefix}.{n}.weight").T} for n in names}

  def norm(name):
    return {"scale": get(name)}

  def stack(name, count):
    first = f"{name}.block.0.layer.0.SelfAttention"
    bias = get(f"{first}.relative_attention_bias.weight").T
    out = {
      "relpos_bias": {"rel_embedding": bias},
      f"{name}_norm": norm(f"{name}.final_layer_norm.weight"),
    }
    for i in range(count):
      block = f"{name}.block.{i}.layer"
      last = 1 if name == "encoder" else 2
      ff = f"{block}.{last}"
      layer = {
        "mlp": mlp(f"{ff}.DenseReluDense"),
        "pre_mlp_layer_norm": norm(f"{ff}.layer_norm.weight"),
      }
      self_attention = attention(f"{block}.0.SelfAttention")
      self_norm = norm(f"{block}.0.layer_norm.weight")
      if name == "encoder":
        layer["attention"] = self_attention
        layer["pre_attention_layer_norm"] = self_norm
      else:
        layer["self_attention"] = self_attention
        layer["pre_self_attention_layer_norm"] = self_norm
        layer["encoder_decoder_attention"] = attention(
          f"{block}.1.EncDecAttention"
        )
        layer["pre_cross_attention_layer_norm"] = norm(
          f"{block}.1.layer_norm.weight"
        )
      out[f"layers_{i}"] = layer
    return out

  params = {
    "token_embedder": {"embedding": get("shared.weight")},
    "encoder": stack("encoder", config.num_encoder_layers),
    "decoder": stack("decoder", config.num_decoder_layers),
  }
  if not config.logits_via_embedding:
    params["decoder"]["logits_dense"] = {"kernel": get("lm_head.weight").T}
  return params


@dataclasses.dataclass(frozen=True)
class Twins:
  """One random model, twice."""

  config: t5_config.T5Config
  params: dict
  torch_model: object


def _twins(config, seed=0):
  model = _torch_t5(config, seed)
  return Twins(config, to_t5x(model.state_dict(), config), model)


@pytest.fixture(scope="session")
def tiny_twins():
  return _twins(TINY)


@pytest.fixture(scope="session")
def quick_twins(tiny_twins):
  """The tiny twins, with every speed-up that waits for larger work."""
  config = dataclasses.replace(TINY, absorb_from=0, attention_bytes=1)
  return dataclasses.replace(tiny_twins, config=config)


@pytest.fixture(scope="session")
def tied_twins():
  config = dataclasses.replace(
    TINY, mlp_activations=("relu",), logits_via_embedding=True
  )
  return _twins(config, seed=1)


@pytest.fixture(scope="session")
def small_twins():
  return _twins(SMALL, seed=2)


def ragged_batch(config, *, rows=3, inputs=9, targets=5, seed=0):
  """Random ids with ragged right padding, as numpy arrays."""
  rng = np.random.default_rng(seed)
  encoder = rng.integers(2, config.vocab_size, (rows, inputs))
  target = rng.integers(2, config.vocab_size, (rows, targets))
  for row in range(rows):
    encoder[row, inputs - row :] = 0
    end = targets - 1 - row % 2
    target[row, end] = 1
    target[row, end + 1 :] = 0
  return encoder.astype(np.int32), target.astype(np.int32)


@pytest.fixture(scope="session")
def make_batch():
  return ragged_batch
