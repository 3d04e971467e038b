"""Deep prompts: where their vectors go, and settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.tuners.deep_prompt import DeepPrompt
from prompt_tuning.tuners.initializers import InitializerContext, Uniform
from prompt_tuning.tuners.method import Inputs
from tests.tuners import peft_twins

TINY = t5_config.get("t5_1_1_tiny")
ROWS = 40


@pytest.mark.parametrize("replace", [True, False])
def test_every_layer_has_its_vectors_at_its_stacks_tokens(replace):
  method = DeepPrompt(TINY.shape, 3, 2, replace, Uniform(0.0, 1.0))
  params = peft_twins.random_params(method)
  delta = method.apply({"params": params}, Inputs())
  places = method.placement
  assert (places.encoder_prefix, places.decoder_prefix) == ((0, 1, 2), (3, 4))
  first = [params["encoder"][0], params["decoder"][0]]
  np.testing.assert_array_equal(delta.virtual, np.concatenate(first))
  for stack, rows in (("encoder", [0, 1, 2]), ("decoder", [3, 4])):
    values, flags = delta.hidden[stack]
    np.testing.assert_array_equal(values[1:, rows], params[stack][1:])
    # The first layer gets what the virtual tokens are; others keep theirs.
    assert not np.any(values[0])
    assert not np.any(flags[0])
    assert np.all(flags[1:, rows] == replace)
    others = [row for row in range(values.shape[1]) if row not in rows]
    assert not np.any(values[:, others])
    assert not np.any(flags[:, others])


def initial(replace):
  table = jnp.asarray(np.random.default_rng(0).normal(size=(ROWS, 4)))
  method = DeepPrompt(TINY.shape, 3, replace=replace)
  context = InitializerContext(embeddings=table.astype(jnp.float32))
  variables = method.init(jax.random.key(0), Inputs(context))
  return table, meta.unbox(variables["params"])["encoder"]


def test_what_replaces_starts_at_words_and_what_is_added_at_zero():
  for replace in (True, False):
    table, layers = initial(replace)
    near = (
      np.abs(np.asarray(layers)[:, :, None] - np.asarray(table)).max(-1).min(-1)
    )
    assert (near[0] == 0).all()
    assert (near[1] == 0).all() == replace
    assert np.any(np.asarray(layers[1])) == replace


@pytest.mark.parametrize(
  "lengths", [(0, 0), (-1, 2), (2.0, 0), (True, 0)], ids=str
)
def test_refused_lengths(lengths):
  with pytest.raises(
    ValueError, match=r"DEEP_PROMPT_LENGTH.*one of them above 0, got"
  ):
    DeepPrompt(TINY.shape, *lengths)


def test_a_text_is_no_truth_value():
  with pytest.raises(ValueError, match="REPLACE must be True or False; got 'n"):
    DeepPrompt(TINY.shape, replace="no")
