"""The step: only trainables move, banks equal solo runs, layouts agree."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.core import axes, partition, tree
from prompt_tuning.models.t5 import network
from prompt_tuning.models.t5.config import T5Config
from prompt_tuning.train import optimizers
from prompt_tuning.tuners import initializers

CONFIG = T5Config(
  vocab_size=64,
  emb_dim=16,
  num_heads=4,
  head_dim=4,
  mlp_dim=32,
  num_encoder_layers=2,
  num_decoder_layers=2,
)


def run(setup, batches, steps):
  state = setup.state
  for _ in range(steps):
    state, metrics = setup.step(state, setup.frozen, next(batches))
  return state, metrics


def assert_close(ours, theirs, **tolerance):
  a, b = tree.flatten(ours), tree.flatten(theirs)
  assert a.keys() == b.keys()
  for path in a:
    np.testing.assert_allclose(a[path], b[path], err_msg=path, **tolerance)


def test_only_the_prompt_changes(params, setup, counted_batches):
  """Frozen leaves keep their bits, and are nowhere in what a step returns."""
  s = setup(params)
  before = {k: np.array(v) for k, v in tree.flatten(s.frozen).items()}
  state, _ = run(s, counted_batches((0,)), 3)
  for path, array in tree.flatten(s.frozen).items():
    assert array.tobytes() == before[path].tobytes(), path
  assert list(tree.flatten(state.trainable)) == [
    "tuner/encoder/prompt/prompt/prompt"
  ]
  moved = tree.flatten(state.trainable)
  start = tree.flatten(s.state.trainable)
  for path in moved:
    assert not np.allclose(moved[path], start[path])


def test_no_frozen_leaf_in_state_or_outputs(params, setup, counted_batches):
  """The largest array that a step returns is the prompt's."""
  s = setup(params)
  batch = next(counted_batches((0,)))
  out = jax.eval_shape(s.program.step, s.state, s.frozen, batch)
  sizes = [leaf.size for leaf in jax.tree.leaves(out)]
  assert max(sizes) == 4 * 16
  names = optimizers.flatten_state(s.state.opt_state)
  assert not [name for name in names if "model" in name]
  # No operation of the compiled step writes a frozen weight's gradient.
  jaxpr = jax.make_jaxpr(s.program.step)(s.state, s.frozen, batch)
  shapes = {tuple(v.aval.shape) for v in jaxpr.jaxpr.outvars}
  assert (64, 16) not in shapes


@pytest.mark.parametrize("dropout", [False, True])
def test_a_mixed_bank_equals_its_solo_runs(
  dropout, params, setup, counted_batches, tolerance
):
  """8 runs that differ in seed, rate, initialiser and data, 50 steps."""
  seeds = tuple(range(8))
  rates = [0.3, 0.1, 0.3, 0.03, 0.3, 0.1, 0.5, 0.3]
  inits = [
    initializers.UNIFORM_PAPER,
    initializers.UNIFORM_PUBLIC,
    initializers.SampledVocabulary(population=None),
    initializers.Uniform(),
  ] * 2
  together = setup(params, seeds, rates, inits, dropout=dropout)
  state, _ = run(together, counted_batches(seeds, 2), 50)
  for k in range(8):
    alone = setup(
      params,
      seeds[k : k + 1],
      rates[k : k + 1],
      inits[k : k + 1],
      dropout=dropout,
    )
    solo, _ = run(alone, counted_batches(seeds[k : k + 1], 2), 50)
    mine = jax.tree.map(lambda a, k=k: a[k : k + 1], state.trainable)
    assert_close(mine, solo.trainable, **tolerance["same"])


def test_microbatches_give_the_same_step(
  params, setup, counted_batches, tolerance
):
  seeds = (0, 1)
  whole = setup(params, seeds)
  pieces = setup(params, seeds, num_microbatches=4)
  ours, m = run(pieces, counted_batches(seeds, 8), 3)
  theirs, n = run(whole, counted_batches(seeds, 8), 3)
  assert_close(ours.trainable, theirs.trainable, **tolerance["same"])
  np.testing.assert_allclose(m.sums["loss"], n.sums["loss"], **tolerance["sum"])


def test_rows_in_any_order_give_the_same_step(
  params, setup, counted_batches, tolerance
):
  """As rows of several hosts arrive: not grouped by run."""
  seeds = (0, 1)
  s = setup(params, seeds, num_microbatches=2)
  batch = next(counted_batches(seeds, 4))
  order = np.array([4, 0, 5, 1, 6, 2, 7, 3])  # within a run, in order
  mixed = {k: v[order] for k, v in batch.items()}
  ours, _ = s.step(s.state, s.frozen, mixed)
  theirs, _ = s.step(s.state, s.frozen, batch)
  assert_close(ours.trainable, theirs.trainable, **tolerance["same"])


def tune_models(setup, params, seeds, rates, **program):
  """Describe the tuning of whole backbones, one per seed."""
  s = setup(
    params,
    seeds,
    rates,
    rules=partition.EVERYTHING,
    optimizer=optimizers.Adafactor(min_dim_size_to_factor=8),
    with_tuner=False,
    **program,
  )
  s.program = dataclasses.replace(s.program, produce=lambda *_: network.Delta())
  return s


@pytest.fixture(scope="module")
def plain_batches(counted_batches):
  """Batches without virtual tokens."""

  class Plain(counted_batches):
    def __next__(self):
      batch = super().__next__()
      encoder = batch["encoder_input_tokens"]
      batch["encoder_input_tokens"] = np.where(encoder >= 64, 2, encoder)
      return batch

  return Plain


def test_model_tuning_is_another_rule(params, setup, plain_batches, tolerance):
  """Two backbones trained at once equal each alone; all of them move."""
  seeds, rates = (0, 1), [0.01, 0.003]
  s = tune_models(setup, params, seeds, rates)
  assert s.program.tunes_model
  step = jax.jit(s.program.step)
  state, batches = s.state, plain_batches(seeds)
  for _ in range(3):
    state, _ = step(state, s.frozen, next(batches))
  for k in range(2):
    solo = tune_models(setup, params, seeds[k : k + 1], rates[k : k + 1])
    own_step = jax.jit(solo.program.step)
    own, batches = solo.state, plain_batches(seeds[k : k + 1])
    for _ in range(3):
      own, _ = own_step(own, solo.frozen, next(batches))
    mine = jax.tree.map(lambda a, k=k: a[k : k + 1], state.trainable)
    assert_close(mine, own.trainable, **tolerance["order"])
  for path, array in tree.flatten(state.trainable).items():
    start = tree.flatten(s.state.trainable)[path]
    assert not np.array_equal(array, start), path


def test_model_tuning_shares_rows_among_devices(
  params, setup, plain_batches, tolerance
):
  """Every device computes its own rows; only gradients cross."""
  # Dropout counts the rows before each one, which crosses too, as integers.
  s = tune_models(setup, params, (0,), [0.01], dropout=False)
  step = jax.jit(s.program.step)
  batch = next(plain_batches((0,), 8))
  one, _ = step(s.state, s.frozen, batch)
  mesh = axes.make_mesh(data=8, model=1)
  state = axes.replicated(mesh, s.state)
  placed = axes.batch_sharder(mesh, axes.STANDARD_RULES)(batch)
  compiled = step.lower(state, s.frozen, placed).compile()
  text = compiled.as_text()
  assert "all-reduce" in text
  assert "all-gather" not in text
  eight, _ = compiled(state, s.frozen, placed)
  assert_close(eight.trainable, one.trainable, **tolerance["same"])


def test_eight_devices_equal_one(params, setup, counted_batches, tolerance):
  """The same step on a mesh of 2 data x 4 model."""
  seeds = (0, 1)
  s = setup(params, seeds)
  one, _ = run(s, counted_batches(seeds, 4), 5)
  mesh, rules = axes.make_mesh(data=2, model=4), axes.STANDARD_RULES
  target = axes.restore_target(
    network.abstract_params(CONFIG), network.logical_axes(CONFIG), mesh, rules
  )
  frozen = {
    "model": jax.tree.map(
      lambda a, t: jax.device_put(a, t.sharding), s.frozen["model"], target
    )
  }
  state = axes.replicated(mesh, s.state)
  place = axes.batch_sharder(mesh, rules)
  batches = counted_batches(seeds, 4)
  for _ in range(5):
    state, _ = s.step(state, frozen, place(next(batches)))
  assert_close(state.trainable, one.trainable, **tolerance["same"])


def test_a_mesh_that_does_not_fit_is_refused():
  mesh = axes.make_mesh(data=1, model=8)
  config = dataclasses.replace(CONFIG, vocab_size=60)
  with pytest.raises(ValueError, match="evenly") as error:
    axes.restore_target(
      network.abstract_params(config),
      network.logical_axes(config),
      mesh,
      axes.STANDARD_RULES,
    )
  assert "token_embedder/embedding: a dimension of 60" in str(error.value)
  with pytest.raises(ValueError, match="this job has 8"):
    axes.make_mesh(data=3, model=2)
  place = axes.batch_sharder(axes.make_mesh(2, 4), axes.STANDARD_RULES)
  with pytest.raises(ValueError, match="BATCH_SIZE"):
    place({"x": np.zeros((3, 2))})


def test_rows_that_cannot_be_shared_are_refused(params, setup, counted_batches):
  batch = next(counted_batches((0,), 6))
  s = setup(params, (0,), num_microbatches=4)
  with pytest.raises(ValueError, match="NUM_MICROBATCHES"):
    s.step(s.state, s.frozen, batch)


def test_training_lowers_the_loss(random_params, setup, counted_batches):
  s = setup(random_params(CONFIG), (0, 1), dropout=False)
  fixed = next(counted_batches((0, 1), 4))
  state, first = s.step(s.state, s.frozen, fixed)
  for _ in range(60):
    state, last = s.step(state, s.frozen, fixed)
  assert np.all(last.sums["loss"] < 0.9 * np.asarray(first.sums["loss"]))
  assert jnp.all(last.norms["update"] > 0)


def shaken(params, keys):
  """A method that draws: some of its numbers are dropped while training."""
  rows = params["encoder"]["prompt"]["prompt"]["prompt"]
  if keys is not None:
    keep = jax.vmap(lambda k: jax.random.bernoulli(k, 0.5, rows.shape[1:]))
    rows = jnp.where(keep(keys), rows / 0.5, 0.0)
  return network.Delta(virtual=rows)


@pytest.mark.parametrize("dropout", [False, True], ids=["method", "both"])
@pytest.mark.parametrize("rules", ["tuner", "everything"])
def test_what_a_method_draws_belongs_to_its_run(
  rules, dropout, params, setup, counted_batches, tolerance
):
  """A bank equals solo runs, in one piece or in microbatches; no two alike."""
  more = {"dropout": dropout}
  if rules == "everything":
    more["rules"] = partition.EVERYTHING
    copies = jax.tree.map(lambda a: jnp.stack([a, a]), params)
  seeds = (3, 5)

  def trained(seeds, params, microbatches=1):
    s = setup(
      params,
      seeds=seeds,
      rates=[1e-2] * len(seeds),
      num_microbatches=microbatches,
      **more,
    )
    s.program = dataclasses.replace(s.program, produce=shaken)
    s.step = jax.jit(s.program.step)
    return run(s, counted_batches(seeds), 3)[0].trainable

  bank = trained(seeds, copies if rules == "everything" else params)
  pieces = trained(seeds, copies if rules == "everything" else params, 2)
  assert_close(bank, pieces, **tolerance["same"])
  for k, seed in enumerate(seeds):
    alone = trained(
      (seed,),
      jax.tree.map(lambda a: a[None], params)
      if rules == "everything"
      else params,
    )
    own = jax.tree.map(lambda a, k=k: a[k : k + 1], bank)
    assert_close(own, alone, **tolerance["same"])


def test_a_methods_keys_change_with_run_and_step(
  params, setup, counted_batches
):
  """And equal none that a row has."""
  s = setup(params, seeds=(0, 1))
  batch = next(counted_batches((0, 1)))
  states = [dataclasses.replace(s.state, step=jnp.int32(n)) for n in (0, 1)]
  runs = [s.program._run_keys(state) for state in states]
  rows = [s.program._row_keys(state, batch) for state in states]
  keys = np.concatenate([jax.random.key_data(k) for k in (*runs, *rows)])
  assert len(np.unique(keys, axis=0)) == len(keys) == 2 * 2 + 2 * 8


def test_a_method_draws_nothing_in_evaluation(params, setup, counted_batches):
  s = setup(params)
  drawn = []

  def produce(params, keys):
    drawn.append(keys)
    return shaken(params, keys)

  program = dataclasses.replace(s.program, produce=produce)
  batch = next(counted_batches((0,)))
  jax.eval_shape(program.losses, s.state.trainable, s.frozen, batch)
  assert drawn == [None]


def test_keys_that_a_method_leaves_alone_cost_nothing(
  params, setup, counted_batches, monkeypatch
):
  """The compiled step is the one of a program that makes no such keys."""
  batch = next(counted_batches((0,)))

  def operations():
    s = setup(params, dropout=False)
    step = jax.jit(s.program.step)
    text = step.lower(s.state, s.frozen, batch).compile().as_text()
    return re.findall(r"[\w\]})] ([a-z-]+)\(", text)

  ours = operations()
  assert len(ours) > 100
  monkeypatch.setattr(type(setup(params).program), "_run_keys", lambda *_: None)
  assert operations() == ours
