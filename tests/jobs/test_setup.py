"""Where the state of a training lies on a mesh, and that it stays there."""

import dataclasses
import functools
import pathlib
import traceback
import types

import jax
import numpy as np
import pytest

from prompt_tuning.checkpoints.backbone import Backbone
from prompt_tuning.core import axes, partition, tree
from prompt_tuning.core.delta import Delta
from prompt_tuning.jobs import setup
from prompt_tuning.jobs.settings import Dataset, MeshShape
from prompt_tuning.jobs.train_job import from_settings
from prompt_tuning.models.scorers import OutputRows
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network, sites
from prompt_tuning.train import state
from prompt_tuning.train.classes import Classes
from prompt_tuning.train.masks import Masks
from prompt_tuning.train.mixture import Mixture
from prompt_tuning.train.objectives import CrossEntropy
from prompt_tuning.train.optimizers import Adafactor, Optax
from prompt_tuning.tuners.prompt import Prompt

VOCABULARY = 64
ADAMW = Optax("adamw")
FACTORED = Adafactor(min_dim_size_to_factor=8)
DESIGN = pathlib.Path(__file__).parents[2] / "docs" / "design.md"
# What the step calls, and that calls, up to the site of virtual tokens.
FRAMES = [
  *("_gradients", "total", "losses", "forward"),  # train, jobs
  *("outputs", "encode", "__call__"),  # T5, its table
]
FULL = MeshShape(None, 2, axes.FULLY_SHARDED_RULES)


def make_job(**changes):
  settings = {
    "model_dir": "unused",
    "model": t5_config.get(
      "t5_1_1_tiny",
      vocab_size=VOCABULARY,
      emb_dim=16,
      num_heads=4,
      head_dim=4,
      mlp_dim=32,
      dtype="float32",
      dropout_rate=0.0,
    ),
    "initial_checkpoint_path": None,
    "dataset": Dataset("taskless_super_glue_rte_v102", batch_size=8),
    "relative_steps": 1,
    "tuner": None,
    "rules": partition.EVERYTHING,
    "restore_dtype": "float32",
    "learning_rates": 1e-3,
    "mesh": FULL,
  }
  return from_settings(**settings | changes)


@pytest.fixture(scope="module")
def assembled(random_params):
  """Assemble a job on a mesh (4 data x 2 model) or without one."""

  def assemble(job, mesh):
    params = random_params(job.experiment.model)
    target = axes.restore_target(
      network.abstract_params(job.experiment.model),
      network.logical_axes(job.experiment.model),
      mesh,
      job.source.mesh.rules,
    )
    params = jax.tree.map(
      lambda array, leaf: jax.device_put(
        array, leaf.sharding or jax.devices()[0]
      ),
      params,
      target,
    )
    vocabulary = types.SimpleNamespace(encode=None)
    backbone = Backbone(job.experiment.model, params, 0, "")
    methods = setup.initialise(job.experiment, backbone, vocabulary, mesh)
    return setup.build(
      job.experiment, params, methods, 0, mesh, job.source.mesh.rules
    )

  return assemble


def make_batch(step):
  rng = np.random.default_rng(step)
  ids = rng.integers(2, VOCABULARY, (8, 5)).astype(np.int32)
  names = ("encoder_input", "decoder_input", "decoder_target")
  return {f"{name}_tokens": ids for name in names}


def trained(job, parts, mesh, steps=3):
  """Take some steps: (the jitted step, the last state)."""
  place = axes.batch_sharder(mesh, job.source.mesh.rules)
  step, last = jax.jit(parts.program.step, donate_argnums=0), parts.state
  for number in range(steps):
    last, _ = step(last, parts.frozen, place(make_batch(number)))
  return step, last


def shardings(leaves):
  return jax.tree.map(lambda leaf: leaf.sharding, leaves)


@pytest.mark.parametrize(
  "optimizer",
  [ADAMW, Optax("lion"), Optax("sgd", momentum=0.9), Adafactor()],
  ids=["adamw", "lion", "momentum", "unfactored"],
)
def test_moments_are_split_as_their_parameters(assembled, optimizer):
  mesh = axes.make_mesh(4, 2)
  made = assembled(make_job(optimizer=optimizer), mesh).state
  kernel = "model/encoder/layers_0/mlp/wi_0/kernel"
  where = tree.flatten(made.trainable)[kernel].sharding
  assert not where.is_fully_replicated
  found = [
    array.sharding == where
    for name, array in state.resume_arrays(made).items()
    if name.endswith(kernel) and array.size > 1
  ]
  assert found
  assert all(found)


def test_a_chips_share_of_adams_state(assembled):
  """Twice that of the parameters, and a count."""
  made = assembled(make_job(optimizer=ADAMW), axes.make_mesh(4, 2)).state

  def share(leaves):
    return sum(a.addressable_shards[0].data.nbytes for a in leaves)

  own = share(jax.tree.leaves(made.trainable))
  assert own < sum(a.nbytes for a in jax.tree.leaves(made.trainable)) / 4
  held = share(jax.tree.leaves(made.opt_state))
  assert 2 * own <= held <= 2 * own + 16


def test_what_is_no_parameters_size_is_everywhere(assembled):
  made = assembled(make_job(optimizer=FACTORED), axes.make_mesh(4, 2)).state
  rest = {
    name: array
    for name, array in state.resume_arrays(made).items()
    if "/v_row/" in name or "/v_col/" in name or name.endswith("count")
  }
  assert any(array.size > 1 for array in rest.values())
  assert all(array.sharding.is_fully_replicated for array in rest.values())


@pytest.mark.parametrize("optimizer", [ADAMW, FACTORED], ids=["adamw", "rows"])
@pytest.mark.parametrize("tuner", [None, Prompt], ids=["model", "prompt"])
def test_steps_keep_the_layout_and_are_compiled_once(
  assembled, optimizer, tuner
):
  rules = partition.TUNER_ONLY if tuner else partition.EVERYTHING
  job = make_job(optimizer=optimizer, tuner=tuner, rules=rules)
  mesh = axes.make_mesh(4, 2)
  parts = assembled(job, mesh)
  before = shardings(parts.state)
  step, last = trained(job, parts, mesh)
  assert shardings(last) == before
  assert step._cache_size() == 1


@pytest.mark.parametrize(
  ("optimizer", "scan", "microbatches"),
  [(ADAMW, False, 1), (ADAMW, True, 2), (FACTORED, True, 1)],
  ids=["adamw", "adamw in pieces", "rows"],
)
def test_a_split_state_trains_as_one_device_does(
  assembled, optimizer, scan, microbatches, tolerance
):
  job = make_job(optimizer=optimizer, num_microbatches=microbatches)
  model = dataclasses.replace(job.experiment.model, scan_layers=scan)
  experiment = dataclasses.replace(job.experiment, model=model)
  job = dataclasses.replace(job, experiment=experiment)
  mesh = axes.make_mesh(4, 2)
  _, split = trained(job, assembled(job, mesh), mesh)
  _, alone = trained(job, assembled(job, None), None)
  for (path, ours), theirs in zip(
    jax.tree_util.tree_leaves_with_path(split),
    jax.tree.leaves(alone),
    strict=True,
  ):
    np.testing.assert_allclose(
      ours, theirs, err_msg=str(path), **tolerance["same"]
    )


@pytest.mark.parametrize("optimizer", [ADAMW, FACTORED], ids=["adamw", "rows"])
def test_a_resumed_state_lies_as_a_fresh_one(assembled, optimizer):
  job, mesh = make_job(optimizer=optimizer), axes.make_mesh(4, 2)
  fresh = assembled(job, mesh).state
  saved = jax.tree.map(lambda leaf: np.full(leaf.shape, 3, leaf.dtype), fresh)
  resumed = state.from_arrays(
    fresh, tree.flatten(saved.trainable), state.resume_arrays(saved)
  )
  assert shardings(resumed) == shardings(fresh)
  jax.tree.map(np.testing.assert_array_equal, resumed, saved)


@pytest.mark.parametrize("rules", ["STANDARD_RULES", "FULLY_SHARDED_RULES"])
@pytest.mark.parametrize("microbatches", [1, 4, 8])
def test_prompts_train_alike_however_few_rows_a_piece_has(
  assembled, microbatches, rules, tolerance
):
  """Pieces of two rows, or one, cannot be split over four ways."""
  job = make_job(
    tuner=functools.partial(Prompt, encoder_length=2),
    rules=partition.TUNER_ONLY,
    mesh=MeshShape(None, 2, getattr(axes, rules)),
    num_microbatches=microbatches,
  )
  model = dataclasses.replace(job.experiment.model, scan_layers=True)
  experiment = dataclasses.replace(job.experiment, model=model)
  job = dataclasses.replace(job, experiment=experiment)
  mesh = axes.make_mesh(4, 2)
  found = []
  for where in (mesh, None):
    parts = assembled(job, where)
    place = axes.batch_sharder(where, job.source.mesh.rules)
    step = jax.jit(parts.program.step)
    last, metrics = step(parts.state, parts.frozen, place(prompted(0)))
    found.append((last.trainable, metrics))
  for ours, theirs in zip(*map(jax.tree.leaves, found), strict=True):
    np.testing.assert_allclose(ours, theirs, **tolerance["same"])


def prompted(step):
  """A batch with two virtual tokens in front of the inputs."""
  batch = make_batch(step)
  virtual = np.tile(VOCABULARY + np.arange(2, dtype=np.int32), (8, 1))
  inputs = np.concatenate([virtual, batch["encoder_input_tokens"]], axis=1)
  return batch | {"encoder_input_tokens": inputs}


def test_frames_between_the_step_and_the_site(assembled, monkeypatch):
  """docs/design.md, section 4: our own frames; JAX's and Flax's do not count.

  As many as a traceback of an error in a site shows between the two.
  """
  job = make_job(
    tuner=functools.partial(Prompt, encoder_length=2),
    rules=partition.TUNER_ONLY,
  )
  built = assembled(job, None)
  embed, stacks = sites.embed, []

  def noting(*arguments):
    stacks.append(traceback.extract_stack())
    return embed(*arguments)

  monkeypatch.setattr(sites, "embed", noting)
  jax.eval_shape(built.program.step, built.state, built.frozen, prompted(0))
  package = str(pathlib.Path(network.__file__).parents[2])
  ours = [f for f in stacks[0][:-1] if f.filename.startswith(package)]
  names = [frame.name for frame in ours]
  assert names[0] == "step"
  assert names[1:] == FRAMES
  assert f"{len(FRAMES)} frames of our own" in DESIGN.read_text()


@pytest.mark.parametrize(
  ("choice", "reader"),
  [
    (CrossEntropy(), "the objective CrossEntropy"),
    (Mixture(), "the objective Mixture"),
    (Classes(), "the scorer WholeWords"),
    (Masks(), "the scorer Sentinels"),
    (Classes(OutputRows()), None),
  ],
)
def test_output_rows_that_nothing_asks_for_are_refused(choice, reader):
  """They would be taught to be unlikely, and KnowPrompt would read EOS."""
  rows = Delta(head_rows=np.zeros((1, 2, 16), np.float32))
  experiment = types.SimpleNamespace(
    tuners=(Prompt(encoder_length=1),),
    model=make_job().experiment.model,
    run_objective=choice,
  )
  produce = lambda params, keys: rows  # noqa: E731
  if reader is None:
    setup._insist_on_fitting(experiment, produce, {})
    return
  with pytest.raises(ValueError, match=f"for every class, but {reader} reads"):
    setup._insist_on_fitting(experiment, produce, {})
