"""A one-layer model over thirteen words, and three runs of three lengths."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.core import tree
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.placement import Placement
from prompt_tuning.infer.batching import Batching
from prompt_tuning.infer.predict import Predictor
from prompt_tuning.infer.runs import Runs, join
from prompt_tuning.models.t5 import network
from prompt_tuning.models.t5.config import T5Config

WORDS = [
  *("red", "green", "blue", "cat", "dog", "bird", "sings", "runs", "sleeps"),
  *("choice", "1", "2", "3"),
]
CONFIG = T5Config(
  vocab_size=16,  # pad, EOS, unknown, the words
  emb_dim=8,
  num_heads=2,
  head_dim=4,
  mlp_dim=16,
  num_encoder_layers=1,
  num_decoder_layers=1,
  relpos_buckets=8,
  relpos_max_distance=16,
)
# One run each: before the text; after it; both, and in the decoder.
PLACEMENTS = (
  Placement(encoder_prefix=(0, 1)),
  Placement(encoder_suffix=(0, 1, 2, 3, 4)),
  Placement(encoder_prefix=(0,), encoder_suffix=(1,), decoder_prefix=(2, 3)),
)
LENGTHS = (2, 5, 4)


class WordVocabulary:
  """One id per word; `size` words are known."""

  path = "thirteen words"

  def encode_batch(self, texts):
    return [[self._id(word) for word in text.split()] for text in texts]

  def decode(self, ids):
    words = []
    for token in ids:
      if token == 1:
        break
      words.append(WORDS[token - 3] if 3 <= token < 3 + len(WORDS) else "?")
    return " ".join(words)

  def _id(self, word):
    return WORDS.index(word) + 3 if word in WORDS else 2


def one_run(index):
  """A single prompt with as many rows as it needs, and no more."""
  rng = np.random.default_rng(100 + index)
  values = 2 * rng.normal(size=(1, LENGTHS[index], CONFIG.emb_dim))
  virtual = jnp.asarray(values, jnp.float32)
  return Runs(Delta(virtual=virtual), (PLACEMENTS[index],))


def attentive(params):
  """Let answers depend on the input more than a random model's do."""
  flat = tree.flatten(params)
  for path in flat:
    if "encoder_decoder_attention" in path and path.split("/")[-2] in (
      "value",
      "out",
    ):
      flat[path] = 3 * flat[path]
  return tree.unflatten(flat)


@pytest.fixture(scope="session")
def solo_runs():
  return [one_run(index) for index in range(3)]


@pytest.fixture(scope="session")
def predictor(random_params, solo_runs):
  """Three runs; batches of at most four rows."""
  return Predictor(
    CONFIG,
    attentive(random_params(CONFIG, seed=30)),
    WordVocabulary(),
    join(solo_runs),
    batching=Batching(batch_size=4),
  )


@pytest.fixture(scope="session")
def solo(predictor, solo_runs):
  """Run -> a predictor that knows nothing of the others."""

  def build(index):
    return dataclasses.replace(predictor, runs=solo_runs[index])

  return build


@pytest.fixture(scope="session")
def texts():
  """Ten texts of 0 to 20 words."""
  rng = np.random.default_rng(0)
  return [
    " ".join(rng.choice(WORDS, size=size))
    for size in (3, 20, 0, 1, 9, 14, 2, 17, 5, 11)
  ]


_APPLY = jax.jit(network.T5(CONFIG).apply)


def _teacher_forced(predictor, run, text, targets):
  """Logits of one example alone, decoded in one pass without a cache.

  Rows are padded to one shape, so that this compiles once; that padding does
  not change them is shown for the model itself.

  Args:
    predictor: as under test.
    run: number of the run.
    text: the input.
    targets: ids of the answer, EOS included.

  Returns:
    [S, V] float32.
  """
  placement = predictor.runs.placements[run]
  V = CONFIG.vocab_size
  encoder = [
    *(V + row for row in placement.encoder_prefix),
    *predictor.vocabulary.encode_batch([text])[0],
    *(V + row for row in placement.encoder_suffix),
    1,
  ]
  prefix = [V + row for row in placement.decoder_prefix]
  decoder = [*prefix, 0, *targets[:-1]]
  batch = {
    "encoder_input_tokens": [encoder],
    "decoder_input_tokens": [decoder],
    "decoder_target_tokens": [[0] * len(prefix) + list(targets)],
  }
  padded = {}
  for name, (ids,) in batch.items():
    padded[name] = np.zeros((1, 32), np.int32)
    padded[name][0, : len(ids)] = ids
  delta = Delta(virtual=predictor.runs.delta.virtual[run : run + 1])
  logits = _APPLY({"params": predictor.params}, padded, delta)
  return np.asarray(logits)[0, len(prefix) : len(decoder)]


@pytest.fixture(scope="session")
def teacher_forced():
  return _teacher_forced


@pytest.fixture(scope="session")
def brute_score(teacher_forced):
  """Summed log-likelihood of one answer, softmax by numpy."""

  def score(predictor, run, text, answer):
    ids = [*predictor.vocabulary.encode_batch([answer])[0], 1]
    logits = teacher_forced(predictor, run, text, ids).astype(np.float64)
    top = logits.max(-1, keepdims=True)
    log_z = top[:, 0] + np.log(np.exp(logits - top).sum(-1))
    return float((logits[np.arange(len(ids)), ids] - log_z).sum())

  return score
