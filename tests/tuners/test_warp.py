"""WARP's rows against the output head that they are copied from."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.core.delta import Delta
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network
from prompt_tuning.tuners.initializers import InitializerContext
from prompt_tuning.tuners.warp import Warp
from prompt_tuning.tuners.word_rows import OutputRowsOfWords

PIECES = {"no": [5], "yes": [9], "no way": [5, 7]}
MODEL = t5_config.get(
  "t5_1_1_tiny", vocab_size=24, emb_dim=8, num_heads=2, head_dim=4, mlp_dim=12
)


@pytest.mark.parametrize("tied", [False, True])
def test_a_word_starts_at_its_pieces_own_logits(random_params, tied, tolerance):
  """The mean of several rows has the mean of their logits."""
  config = dataclasses.replace(
    MODEL,
    num_encoder_layers=1,
    num_decoder_layers=1,
    logits_via_embedding=tied,
  )
  params = random_params(config)
  context = InitializerContext(
    tokenize=PIECES.get,
    label_words=tuple(PIECES),
    output_rows=functools.partial(network.output_rows, config, params),
  )
  rows = OutputRowsOfWords()(None, (3, 8), jnp.float32, context)
  batch = {
    "encoder_input_tokens": jnp.array([[3, 4, 1]]),
    "decoder_input_tokens": jnp.array([[0, 6]]),
    "decoder_target_tokens": jnp.array([[6, 1]]),
  }
  logits = np.asarray(
    jax.jit(network.T5(config).apply)(
      {"params": params}, batch, Delta(head_rows=rows[None])
    )
  )[0]
  of_pieces = [logits[:, ids].mean(-1) for ids in PIECES.values()]
  np.testing.assert_allclose(
    logits[:, 24:], np.stack(of_pieces, -1), **tolerance["same"]
  )


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (
      {"before": 0, "after": 0},
      r"WARP_BEFORE \+ WARP_AFTER must be a positive",
    ),
    ({"before": -1, "after": 6}, "WARP_BEFORE must be a whole number >= 0"),
    ({"before": 5, "after": 1.0}, "WARP_AFTER must be a whole number >= 0"),
    ({"label_words": "words.txt"}, "must list one word per class"),
    ({"label_words": {"a": "b"}}, "must list one word per class"),
  ],
)
def test_malformed_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    Warp(emb_dim=8, **settings)


@pytest.mark.parametrize("label_words", [None, ("one",)])
def test_without_classes_there_is_nothing_to_learn(label_words):
  with pytest.raises(ValueError, match="LABEL_WORDS"):
    Warp(emb_dim=8, label_words=label_words).init(jax.random.key(0), None)


def test_rows_need_the_head():
  with pytest.raises(ValueError, match="output head"):
    OutputRowsOfWords()(None, (3, 8), jnp.float32, InitializerContext())


def test_a_letter_that_follows_no_blank_is_its_own_piece():
  """`<extra_id_0>A`, as templates write the word `<!>A`."""
  pieces = {"A": [3], "<extra_id_0>": [9], "<extra_id_0>A": [9, 5]}
  words = {"<extra_id_0>A": 5, "<!>A": 5, "<extra_id_0> A": 3, "A": 3}
  context = InitializerContext(
    tokenize=pieces.__getitem__,
    label_words=tuple(words),
    output_rows=lambda ids: jnp.repeat(
      jnp.array(ids, jnp.float32)[:, None], 2, 1
    ),
  )
  rows = OutputRowsOfWords()(None, (4, 2), jnp.float32, context)
  np.testing.assert_array_equal(rows[:, 0], [*words.values()])
  assert Warp(emb_dim=2, label_words=tuple(words)).answers == ("A",) * 4
