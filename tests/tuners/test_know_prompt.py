"""KnowPrompt's structured loss and first values, against numpy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.test_util import check_grads

from prompt_tuning.core import partition
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.outputs import Outputs
from prompt_tuning.jobs import recipes
from prompt_tuning.models.scorers import OutputRows
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network, sites
from prompt_tuning.prompting.label_words import LabelWords, WordPieces
from prompt_tuning.tuners import know_prompt
from prompt_tuning.tuners.initializers import InitializerContext
from prompt_tuning.tuners.know_prompt import KnowPrompt, KnowPromptTuned
from prompt_tuning.tuners.method import Inputs

V, C, H, T = 20, 3, 4, 12
MODEL = t5_config.get(
  "t5_1_1_tiny",
  vocab_size=V,
  emb_dim=H,
  num_heads=2,
  head_dim=4,
  mlp_dim=12,
  num_encoder_layers=1,
  num_decoder_layers=1,
  dropout_rate=0.0,
)
SUB, OBJ = V, V + 1
PIECES = {
  "person": [2, 3],
  "city": [4],
  "date": [5],
  "no": [6],
  "born in": [7, 8],
  "died in": [9, 8],
}
WORDS = ("<extra_id_0> no", "<extra_id_0> born in", "<extra_id_0> died in")
# A sentence, its arguments between type words, and padding.
TOKENS = np.array(
  [
    [7, 8, SUB, 7, SUB, 15, OBJ, 8, 9, OBJ, 1, 0],
    [9, OBJ, 9, OBJ, 15, SUB, 4, 5, 6, SUB, 2, 1],
    [7, 8, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0],  # without arguments
    [0] * T,
  ],
  np.int32,
)
# Where subject and object stand.
SPANS = [((3, 4), (7, 9)), ((6, 9), (2, 3)), None, None]


def method(**settings):
  arguments = {
    "emb_dim": H,
    "label_words": WORDS,
    "subject_types": {"person": 3.0, "city": 1.0},
    "object_types": ("date", "city"),
    "structure": 0.5,
    "gamma": 2.0,
    "negatives": 3,
  }
  return KnowPrompt(**{**arguments, **settings})


def case(seed=0, start=(19,)):
  """Return what the model gave for `TOKENS`, and the batch it had.

  Args:
    seed: of numbers.
    start: what comes first of every answer, such as a template's sentinel.
  """
  rng = np.random.default_rng(seed)
  rows = len(TOKENS)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
  words = LabelWords.of({word: word for word in method().answers})
  pieces = WordPieces.of(words, PIECES.__getitem__, start)
  batch = OutputRows().prepare(
    {"encoder_input_tokens": jnp.asarray(TOKENS)}, pieces
  )
  length = batch["decoder_target_tokens"].shape[1]
  outputs = Outputs(
    draw(rows, length, V + C), draw(rows, T, H), draw(rows, length, H)
  )
  return Delta(head_rows=draw(1, C, H)), outputs, batch


@jax.jit
def losses(delta, outputs, batch, keys):
  """Compute those of `method()`; compiled once for all tests."""
  return method().extra(delta, outputs, batch, keys)["structure"]


def keys(count=1):
  return jax.random.split(jax.random.key(3), count)


def log_sigmoid(x):
  return -np.log1p(np.exp(-x))


def by_hand(outputs, batch, own, key):
  """Compute the loss of every example, one number at a time."""
  encoder = np.asarray(outputs.encoder_states, np.float64)
  decoder = np.asarray(outputs.decoder_states, np.float64)
  drawn = np.asarray(
    know_prompt.random_spans(
      batch["encoder_input_tokens"],
      know_prompt._row_keys(batch, key),
      own.negatives,
    )
  )
  losses = []
  for b, spans in enumerate(SPANS):
    if spans is None:
      losses.append(0.0)
      continue
    r = decoder[b, -1]  # as the scorer reads logits
    s, o = (encoder[b, first:last].mean(0) for first, last in spans)
    loss = -log_sigmoid(own.gamma - np.linalg.norm(s + r - o))
    for masks in drawn[b]:
      s, o = (encoder[b][mask].mean(0) for mask in masks)
      far = np.linalg.norm(s + r - o) - own.gamma
      loss -= log_sigmoid(far) / own.negatives
    losses.append(own.structure * loss)
  return np.array(losses)


@pytest.mark.parametrize("start", [(), (19,)])
def test_the_loss_of_every_example_is_numpys(start, tolerance):
  """Whatever the decoder is given before the answer."""
  (delta, outputs, batch), own = case(start=start), method()
  got = losses(delta, outputs, batch, keys())
  expected = by_hand(outputs, batch, own, keys())
  assert (expected[:2] > 0).all()
  np.testing.assert_allclose(got, expected, **tolerance["same"])


def test_the_gradient_is_that_of_finite_differences():
  delta, outputs, batch = case()

  def loss(encoder, decoder):
    states = outputs._replace(encoder_states=encoder, decoder_states=decoder)
    return losses(delta, states, batch, keys()).sum()

  arrays = outputs.encoder_states, outputs.decoder_states
  check_grads(loss, arrays, order=1, modes=["rev"], eps=1e-2)


def test_repeating_the_batch_changes_nothing():
  delta, outputs, batch = case()
  alone = losses(delta, outputs, batch, keys())
  rows = np.array([0, 1, 0, 1])
  twice = jax.tree.map(
    lambda a: jnp.asarray(np.asarray(a)[rows]), (outputs, batch)
  )
  got = losses(delta, *twice, keys())
  np.testing.assert_array_equal(got, alone[rows])


def test_a_run_of_a_bank_and_a_wider_batch_draw_as_alone(tolerance):
  delta, outputs, batch = case()
  of_two = keys(2)
  alone, other = (
    losses(delta, outputs, batch, of_two[run : run + 1]) for run in (1, 0)
  )
  assert (np.asarray(other)[:2] != np.asarray(alone)[:2]).all()
  tokens = np.pad(batch["encoder_input_tokens"], ((0, 0), (0, 4)))
  states = np.pad(outputs.encoder_states, ((0, 0), (0, 4), (0, 0)))
  wide = {
    **batch,
    "encoder_input_tokens": tokens,
    "run_ids": np.ones(len(tokens), np.int32),
  }
  got = losses(delta, outputs._replace(encoder_states=states), wide, of_two)
  np.testing.assert_allclose(got, alone, **tolerance["same"])


def test_random_spans_are_of_a_few_tokens_of_the_text():
  rows = np.tile(TOKENS, (50, 1))
  spans = know_prompt.random_spans(jnp.asarray(rows), keys(len(rows)), count=2)
  assert spans.shape == (len(rows), 2, 2, T)
  sizes = set()
  for row, pairs in zip(rows, np.asarray(spans), strict=True):
    for mask in pairs.reshape(-1, T)[: 4 * bool(row.any())]:
      (places,) = np.nonzero(mask)
      assert (np.diff(places) == 1).all()
      assert (row[places] != 0).all()
      sizes.add(len(places))
  assert sizes == {1, 2, 3, 4}


def test_packed_rows_are_refused():
  delta, outputs, batch = case()
  packed = {**batch, "encoder_segment_ids": batch["encoder_input_tokens"]}
  with pytest.raises(ValueError, match="one example per row"):
    method().extra(delta, outputs, packed, keys())
  assert method(structure=0.0).extra(delta, outputs, packed, keys()) == {}


def context(**changes):
  rng = np.random.default_rng(1)
  table, head = rng.normal(size=(2, V, H)).astype(np.float32)
  return InitializerContext(
    jnp.asarray(table),
    tokenize=PIECES.__getitem__,
    soft_pieces=(None, None),
    output_rows=lambda ids: jnp.asarray(head[np.asarray(ids)]),
    **changes,
  ), (table, head)


def made(own, given):
  delta, _ = own.init_with_output(jax.random.key(0), Inputs(given))
  return delta


def test_types_start_as_weighted_means_and_answers_as_their_words(tolerance):
  given, (table, head) = context()
  delta = made(method(), given)
  person = table[[2, 3]].mean(0)
  expected = [(3 * person + table[4]) / 4, (table[5] + table[4]) / 2]
  np.testing.assert_allclose(delta.virtual, expected, **tolerance["same"])
  for rows_from, rows in (("head", head), ("embeddings", table)):
    delta = made(method(rows_from=rows_from), given)
    expected = [rows[PIECES[word]].mean(0) for word in method().answers]
    np.testing.assert_allclose(delta.head_rows, expected, **tolerance["same"])
  assert method().answers == ("no", "born in", "died in")


def test_without_structure_scores_are_hidden_states_times_mean_rows(tolerance):
  given, (_, head) = context()
  rows = made(method(structure=0.0), given).head_rows
  hidden = np.random.default_rng(2).normal(size=(5, 2, H)).astype(np.float32)
  logits = sites.head_rows(
    jnp.zeros((5, 2, V), jnp.float32), jnp.asarray(hidden), rows[None], None
  )
  words = LabelWords.of({word: word for word in method().answers})
  pieces = WordPieces.of(words, PIECES.__getitem__)
  got = OutputRows()(logits, pieces, V)
  means = np.stack([head[PIECES[word]].mean(0) for word in method().answers])
  expected = hidden[:, -1] @ means.T - np.log(V)
  np.testing.assert_allclose(got, expected, **tolerance["same"])


def test_the_first_stage_trains_the_words_and_the_last_everything():
  own = KnowPromptTuned(
    emb_dim=H,
    label_words=WORDS,
    subject_types=("city",),
    object_types=("city",),
  )
  (stage,) = recipes.stages([own])
  given, _ = context()
  variables = own.init(jax.random.key(0), Inputs(given))
  kernel = jax.ShapeDtypeStruct((7, 7), jnp.float32)
  params = {
    "tuner": nn.meta.unbox(variables["params"]),
    "model": {"kernel": kernel},
  }
  modes = partition.build(stage.rules, params)
  trains = {path for path, mode in modes.modes.items() if mode == "train"}
  assert all(path.startswith("tuner/") for path in trains)
  assert modes.count("train") == (2 + C) * H
  assert stage.recipe == KnowPrompt.recipe
  assert own.recipe.learning_rate < stage.recipe.learning_rate


def test_gradients_of_the_first_stage_reach_both_words_and_all_rows(
  random_params,
):
  """Of a whole model, of which nothing else has any."""
  params = random_params(MODEL)
  given, _ = context()
  own = method()
  made_of = own.init(jax.random.key(0), Inputs(given))["params"]
  everything = {"tuner": nn.meta.unbox(made_of), "model": params}
  (stage,) = KnowPromptTuned.recipe.stages
  modes = partition.build(stage.rules, everything)
  trainable, frozen = modes.split(everything)
  batch = {
    "encoder_input_tokens": jnp.asarray(TOKENS),
    "decoder_input_tokens": jnp.full((len(TOKENS), 2), 0, jnp.int32),
    "decoder_target_tokens": jnp.asarray([[0, 1]] * len(TOKENS), jnp.int32),
  }

  @jax.jit
  @jax.grad
  def gradient(trainable, weights):
    merged = modes.merge(trainable, frozen)
    delta = jax.tree.map(
      lambda a: a[None], own.apply({"params": merged["tuner"]}, Inputs())
    )
    outputs = network.T5(MODEL).apply(
      {"params": merged["model"]}, batch, delta, method="outputs"
    )
    structure = own.extra(delta, outputs, batch, keys())["structure"]
    chosen = jax.nn.log_softmax(outputs.logits[:, -1, V:])[:, 0]
    return weights[0] * structure.sum() - weights[1] * chosen.sum()

  both = gradient(trainable, jnp.ones(2))
  assert set(both) == {"tuner"}
  assert set(both["tuner"]) == {"type_words", "answer_words"}
  for leaf in both["tuner"].values():
    assert np.asarray(leaf).any(axis=-1).all()
  # The structure reaches the types, not the answers.
  alone = gradient(trainable, jnp.asarray([1.0, 0.0]))["tuner"]
  assert np.asarray(alone["type_words"]).any(axis=-1).all()
  assert not np.asarray(alone["answer_words"]).any()


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"label_words": "words.txt"}, "one text per relation"),
    ({"rows_from": "heads"}, "rows_from has 'heads'"),
    ({"negatives": 0}, "KnowPrompt.negatives must be a positive"),
    ({"structure": -1.0}, "KNOWPROMPT_STRUCTURE must be a positive number"),
  ],
)
def test_malformed_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    method(**settings)


def test_what_it_needs_to_start():
  given, _ = context()
  with pytest.raises(ValueError, match="there are 1 label words"):
    made(method(label_words=("one",)), given)
  with pytest.raises(ValueError, match=r"SUBJECT_TYPES and .*: no words"):
    made(method(subject_types=()), given)
  bare = dataclasses.replace(given, soft_pieces=(None,))
  with pytest.raises(ValueError, match="template has 1 soft tokens; KnowPr"):
    made(method(), bare)
  assert made(method(structure=0.0), bare).virtual.shape == (2, H)
