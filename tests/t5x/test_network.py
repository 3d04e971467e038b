"""A prompt in T5X's network, and an optimizer for it alone."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

if importlib.util.find_spec("t5x") is None:
  pytest.skip("T5X is not installed: docs/t5x.md", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("default")

P, PATH = 3, ("encoder", "prompt", "prompt", "prompt")


@pytest.fixture(autouse=True)
def numerics_of_t5x():
  """T5X adds arrays of different ranks and dtypes."""
  with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
    yield


@pytest.fixture(scope="module")
def sizes():
  from t5x.examples.t5 import network

  return network.T5Config(
    vocab_size=64,
    emb_dim=8,
    num_heads=2,
    num_encoder_layers=1,
    num_decoder_layers=1,
    head_dim=4,
    mlp_dim=16,
    mlp_activations=("gelu", "linear"),
  )


@pytest.fixture(scope="module")
def ids():
  rng = np.random.default_rng(0)
  inputs = rng.integers(2, 64, (2, 5)).astype(np.int32)
  inputs[1, 3:] = 0
  return inputs, rng.integers(2, 64, (2, 4)).astype(np.int32)


@pytest.fixture(scope="module")
def prompted(sizes, ids):
  """A network, its variables, and the words that its prompt consists of."""
  from prompt_tuning.t5x import network

  inputs, targets = ids
  model = network.PromptedTransformer(config=sizes, prompt_length=P)
  with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
    variables = model.init(
      jax.random.key(0), inputs, targets, targets, enable_dropout=False
    )
  flat = traverse_util.flatten_dict(variables["params"])
  words = np.asarray([5, 6, 7], np.int32)
  flat[PATH] = flat["token_embedder", "embedding"][words]
  return model, traverse_util.unflatten_dict(flat), words


def logits(model, params, inputs, targets):
  return model.apply(
    {"params": params}, inputs, targets, targets, enable_dropout=False
  )


def without_prompt(params):
  flat = traverse_util.flatten_dict(params)
  assert flat.pop(PATH).shape == (P, 8)
  return traverse_util.unflatten_dict(flat)


def test_words_as_a_prompt_equal_words_as_text(prompted, sizes, ids):
  from t5x.examples.t5 import network

  model, params, words = prompted
  inputs, targets = ids
  text = np.concatenate([np.tile(words, (2, 1)), inputs], axis=1)
  theirs = network.Transformer(sizes)
  np.testing.assert_array_equal(
    logits(model, params, inputs, targets),
    logits(theirs, without_prompt(params), text, targets),
  )


def test_a_constant_prompt_needs_no_parameter(prompted, ids):
  model, params, _ = prompted
  vectors = traverse_util.flatten_dict(params)[PATH]
  constant = model.clone(
    prompt_is_parameter=False, prompt_start=lambda *_: vectors
  )
  np.testing.assert_array_equal(
    logits(constant, without_prompt(params), *ids),
    logits(model, params, *ids),
  )


def test_packed_texts_are_refused(prompted, ids):
  model, params, _ = prompted
  inputs, targets = ids
  with pytest.raises(ValueError, match="but a packed row holds several"):
    model.apply(
      {"params": params},
      *(inputs, targets, targets),
      encoder_segment_ids=np.ones_like(inputs),
      enable_dropout=False,
    )


def test_the_optimizer_has_state_for_the_prompt_alone(prompted):
  from t5x import adafactor

  from prompt_tuning.t5x import optimizer

  _, params, _ = prompted
  definition = optimizer.PromptOptimizer(adafactor.Adafactor(decay_rate=0.8))
  before = definition.create(params)
  flat = traverse_util.flatten_dict(before.state_dict()["state"])
  assert {path[1:-1] for path in flat if path != ("step",)} == {PATH}
  grads = jax.tree.map(jnp.ones_like, params)
  after = before.apply_gradient(grads, learning_rate=0.3)
  changed = {
    path
    for path, leaf in traverse_util.flatten_dict(after.target).items()
    if leaf is not traverse_util.flatten_dict(params)[path]
  }
  assert changed == {PATH}
  assert after.state.step == 1


def test_nothing_to_train_is_an_error(prompted):
  from t5x import adafactor

  from prompt_tuning.t5x import optimizer

  _, params, _ = prompted
  definition = optimizer.PromptOptimizer(adafactor.Adafactor(), "decoder/x")
  with pytest.raises(ValueError, match="matches 'decoder/x', so nothing would"):
    definition.create(params)
