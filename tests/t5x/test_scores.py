"""What a prompt scores in T5X, it scores here."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import prompt_tuning as pt
from prompt_tuning.checkpoints import prompts, restore, sizes
from prompt_tuning.core import embedded
from prompt_tuning.data import vocabulary

if importlib.util.find_spec("t5x") is None:
  pytest.skip("T5X is not installed: docs/t5x.md", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("default")

P = 4
TEXTS = ["hot loud old", "red green", "one two three four"]
TARGETS = ["hot", "green", "four"]
INPUT_LENGTH, TARGET_LENGTH = 24, 6


def tokens(words, texts, length):
  rows = [[*words.encode(text), words.eos_id] for text in texts]
  return np.asarray([row + [0] * (length - len(row)) for row in rows], np.int32)


@pytest.fixture(scope="module")
def checkpoint():
  """The small model that ships with the package."""
  return restore.open_checkpoint(embedded.checkpoint(embedded.DEFAULT))


def scores_in_t5x(checkpoint, file, words):
  """Put the prompt of a file into T5X's network, as configs/ do."""
  from t5x import models
  from t5x.examples.t5 import network

  from prompt_tuning.t5x import network as prompted
  from prompt_tuning.t5x import start
  from prompt_tuning.tuners import copying

  size = sizes.infer_config(checkpoint)
  module = prompted.PromptedTransformer(
    config=network.T5Config(
      vocab_size=size.vocab_size,
      emb_dim=size.emb_dim,
      num_heads=size.num_heads,
      num_encoder_layers=size.num_encoder_layers,
      num_decoder_layers=size.num_decoder_layers,
      head_dim=size.head_dim,
      mlp_dim=size.mlp_dim,
      mlp_activations=("gelu", "linear"),
    ),
    prompt_length=P,
    prompt_start=start.Start(copying.FromFile(str(file))),
    prompt_is_parameter=False,
  )
  model = models.EncoderDecoderModel(
    module, input_vocabulary=None, output_vocabulary=None, optimizer_def=None
  )
  params = {path: leaf.read() for path, leaf in checkpoint.params.items()}
  targets = tokens(words, TARGETS, TARGET_LENGTH)
  batch = {
    "encoder_input_tokens": tokens(words, TEXTS, INPUT_LENGTH),
    "decoder_input_tokens": np.pad(targets[:, :-1], ((0, 0), (1, 0))),
    "decoder_target_tokens": targets,
    "decoder_loss_weights": (targets > 0).astype(np.int32),
  }
  with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
    return model.score_batch(
      traverse_util.unflatten_dict(params, sep="/"),
      jax.tree.map(jnp.asarray, batch),
    )


def test_our_prompt_scores_the_same_in_t5x(
  tmp_path, checkpoint, vocabulary_file, tolerance
):
  width = sizes.infer_config(checkpoint).emb_dim
  vectors = np.random.default_rng(3).normal(size=(P, width)).astype(np.float32)
  file = tmp_path / "prompt.npy"
  prompts.write_npy(file, vectors)
  model = pt.load_model()
  ours = model.with_prompts({"it": file}).score(TEXTS, TARGETS, prompt="it")
  theirs = scores_in_t5x(checkpoint, file, vocabulary.load(vocabulary_file))
  np.testing.assert_allclose(ours, theirs, **tolerance["parity"])
  without = model.score(TEXTS, TARGETS)
  assert np.abs(np.subtract(ours, without)).min() > 1e-2  # it does something
