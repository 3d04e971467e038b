"""Wayward prompts against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.tuners.initializers import InitializerContext
from prompt_tuning.tuners.method import Inputs
from prompt_tuning.tuners.wayward import WaywardPrompt

TABLE = np.random.default_rng(0).normal(size=(20, 4)).astype("f4")
CONTEXT = InitializerContext(embeddings=TABLE, tokenize=lambda text: [7, 3, 9])
METHOD = WaywardPrompt(emb_dim=4, text="a b c", length=3, pull=0.5)


def initialised():
  variables = METHOD.init(jax.random.key(0), Inputs(CONTEXT))
  return jax.tree.map(np.asarray, dict(variables["params"]))


def plain(params):
  return {
    name: np.asarray(getattr(leaf, "value", leaf))
    for name, leaf in params.items()
  }


def test_it_starts_as_the_text_and_free_of_charge():
  params = plain(initialised())
  np.testing.assert_array_equal(params["prompt"], TABLE[[7, 3, 9]])
  np.testing.assert_array_equal(params["text"], params["prompt"])
  assert METHOD.penalty(params) == 0
  delta = METHOD.apply({"params": params}, Inputs())
  np.testing.assert_array_equal(delta.virtual, params["prompt"])
  assert METHOD.placement.encoder_prefix == (0, 1, 2)


def test_distance_costs_its_square_per_position(tolerance):
  params = plain(initialised())
  noise = np.random.default_rng(1).normal(size=(3, 4)).astype("f4")
  moved = {**params, "prompt": params["prompt"] + noise}
  expected = 0.5 * (noise.astype("f8") ** 2).sum() / 3
  np.testing.assert_allclose(
    METHOD.penalty(moved), expected, **tolerance["oracle"]
  )
  gradient = jax.grad(
    lambda prompt: METHOD.penalty({**moved, "prompt": prompt})
  )(jnp.asarray(moved["prompt"]))
  np.testing.assert_allclose(
    gradient, 0.5 * 2 * noise / 3, **tolerance["oracle"]
  )


def test_a_text_of_another_length_says_which():
  short = METHOD.clone(length=2)
  with pytest.raises(ValueError, match=r"has 3 tokens .* PROMPT_LENGTH = 3"):
    short.init(jax.random.key(0), Inputs(CONTEXT))


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"text": " "}, "TASK_STRING must be a text that is not empty; got ' '"),
    ({"text": "", "length": 0}, "TASK_STRING must be a text"),
    ({"text": 5}, "TASK_STRING must be a text that is not empty; got 5"),
    ({"text": "a", "pull": -1.0}, "WAYWARD_PULL is -1.0"),
    ({"text": "a", "length": 0}, "PROMPT_LENGTH"),
  ],
)
def test_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    WaywardPrompt(**settings)
