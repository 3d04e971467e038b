"""A packed batch computes what its examples compute alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.core.delta import Delta
from prompt_tuning.core.placement import Placement
from prompt_tuning.data.assembly import Assembler, one_per_row
from prompt_tuning.data.bank import BankBatches
from prompt_tuning.data.pipeline import Layout, TrainBatches
from prompt_tuning.data.ragged import Ragged, from_rows
from prompt_tuning.models.t5.config import T5Config
from prompt_tuning.models.t5.network import T5

CONFIG = T5Config(
  vocab_size=96,
  emb_dim=32,
  num_heads=4,
  head_dim=8,
  mlp_dim=64,
  num_encoder_layers=2,
  num_decoder_layers=2,
)
# Eight virtual tokens: before the text, before EOS, before the start token.
PLACEMENT = Placement((0, 1, 2, 3, 4), (5,), (6, 7))
LAYOUT = Layout(PLACEMENT, CONFIG.vocab_size)


@dataclasses.dataclass(frozen=True)
class Store:
  inputs: Ragged
  targets: Ragged
  lengths: dict
  key: str = "store"


def make_store(n, seed):
  rng = np.random.default_rng(seed)

  def rows(longest):
    return from_rows(
      [
        np.append(
          rng.integers(2, CONFIG.vocab_size, rng.integers(1, longest)), 1
        )
        for _ in range(n)
      ],
      np.uint16,
    )

  return Store(rows(30), rows(5), {"inputs": 30, "targets": 5})


def packed_batches(store, count, seed=0):
  batches = TrainBatches(store, 3, seed, layout=LAYOUT, batching="packed")
  iterator = iter(batches)
  return batches, [next(iterator) for _ in range(count)]


@pytest.fixture(scope="module")
def params(random_params):
  return random_params(CONFIG)


def make_virtual(runs):
  return jax.random.normal(jax.random.key(0), (runs, 8, CONFIG.emb_dim))


@jax.jit
def loss_and_gradient(virtual, params, batch):
  """The summed loss, with T5X's z-loss, and its prompt gradient."""

  def loss(virtual):
    logits = T5(CONFIG).apply({"params": params}, batch, Delta(virtual=virtual))
    targets = batch["decoder_target_tokens"]
    log_z = jax.nn.logsumexp(logits, axis=-1)
    picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    weights = batch["decoder_loss_weights"]
    return jnp.sum(weights * (log_z - picked + 1e-4 * jnp.square(log_z)))

  return jax.value_and_grad(loss)(virtual)


def unpacked(store, examples):
  assembler = Assembler(
    store.inputs, store.targets, PLACEMENT, CONFIG.vocab_size
  )
  T = int(assembler.encoder_lengths().max()) + 3
  S = int(assembler.decoder_lengths().max()) + 2
  places = one_per_row(examples, (len(examples), T, S))
  return assembler(places, packed=False)


def test_loss_and_prompt_gradient(params, tolerance):
  store = make_store(40, seed=1)
  batches, (packed, _) = packed_batches(store, 2)
  plan, _ = batches.plan(0, np.zeros(0, np.int64))
  examples = plan[0].examples
  assert len(examples) > 3 * 2, "several examples per row"
  virtual = make_virtual(1)
  found = loss_and_gradient(virtual, params, packed)
  expected = loss_and_gradient(virtual, params, unpacked(store, examples))
  for ours, theirs in zip(found, expected, strict=True):
    np.testing.assert_allclose(ours, theirs, **tolerance["same"])
  assert np.abs(expected[1]).max() > 1, "a gradient worth comparing"


def test_a_packed_bank(params, tolerance):
  """Two runs in one packed batch: each prompt's gradient is its own."""
  stores = [make_store(40, seed=1), make_store(30, seed=2)]
  runs = [
    TrainBatches(store, 3, seed, layout=LAYOUT, batching="packed")
    for seed, store in enumerate(stores)
  ]
  batch = next(iter(BankBatches(runs)))
  virtual = make_virtual(2)
  total, gradient = loss_and_gradient(virtual, params, batch)
  losses = []
  for run, (batches, store) in enumerate(zip(runs, stores, strict=True)):
    plan, _ = batches.plan(0, np.zeros(0, np.int64))
    alone = unpacked(store, plan[0].examples)
    loss, own = loss_and_gradient(virtual[run : run + 1], params, alone)
    np.testing.assert_allclose(gradient[run], own[0], **tolerance["same"])
    losses.append(loss)
  np.testing.assert_allclose(total, sum(losses), **tolerance["same"])
