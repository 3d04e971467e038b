"""What is described without arrays equals what training makes of arrays."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.checkpoints.backbone import Backbone
from prompt_tuning.core import axes, partition
from prompt_tuning.data import pipeline
from prompt_tuning.data.ragged import Ragged
from prompt_tuning.jobs import abstract_setup, setup
from prompt_tuning.jobs.identity import placements_of
from prompt_tuning.jobs.settings import Dataset, MeshShape
from prompt_tuning.jobs.train_job import from_settings
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network, quantized
from prompt_tuning.train.optimizers import Adafactor, Optax
from prompt_tuning.tuners.initializers import ClassLabels
from prompt_tuning.tuners.prompt import Prompt

TASK = "taskless_super_glue_rte_v102"
LENGTHS = {"inputs": 12, "targets": 4}


def job(**changes):
  settings = {
    "model_dir": "unused",
    "model": t5_config.get("t5_1_1_tiny", scan_layers=True),
    "initial_checkpoint_path": None,
    "dataset": Dataset(TASK, LENGTHS, batch_size=8, batching="fixed"),
    "relative_steps": 1,
    "tuner": Prompt,
    "restore_dtype": "bfloat16",
    "mesh": MeshShape(None, 2),
  }
  return from_settings(**settings | changes)


def tuned_model(**changes):
  return job(
    tuner=None,
    rules=partition.EVERYTHING,
    learning_rates=1e-3,
    **changes,
  )


def describe(job, mesh):
  return abstract_setup.describe(job.experiment, job.source, mesh)


def _shard(leaf):
  """The devices in order, and what each of them has."""
  parts = leaf.sharding.devices_indices_map(leaf.shape)
  return tuple((device.id, str(part)) for device, part in parts.items())


def _signature(described):
  return jax.tree.map(
    lambda leaf: (leaf.shape, leaf.dtype, _shard(leaf)), described
  )


@pytest.mark.parametrize(
  "job",
  [
    job(),
    job(seeds=(0, 1), optimizer=Optax("adamw")),
    job(restore_dtype="int8"),
    job(
      restore_dtype="int4",
      mesh=MeshShape(None, 2, axes.FULLY_SHARDED_RULES),
    ),
    tuned_model(),
    tuned_model(optimizer=Adafactor(min_dim_size_to_factor=2)),
    tuned_model(optimizer=Optax("adamw")),
    tuned_model(mesh=MeshShape(None, 2, axes.FULLY_SHARDED_RULES)),
    tuned_model(
      optimizer=Optax("adamw"),
      mesh=MeshShape(None, 2, axes.FULLY_SHARDED_RULES),
    ),
  ],
  ids=[
    "prompt",
    "bank",
    "int8",
    "int4",
    "model",
    "factored",
    "adamw",
    "fully sharded",
    "fully sharded adamw",
  ],
)
def test_equals_what_training_assembles(job):
  mesh = axes.make_mesh(4, 2)
  target = axes.restore_target(
    network.abstract_params(job.experiment.model),
    network.logical_axes(job.experiment.model),
    mesh,
    job.source.mesh.rules,
    quantized.float_dtype(job.source.restore_dtype),
  )
  target = quantized.target(target, job.source.restore_dtype)
  params = jax.tree.map(
    lambda leaf: jax.device_put(
      np.zeros(leaf.shape, leaf.dtype), leaf.sharding
    ),
    target,
  )
  backbone = Backbone(job.experiment.model, params, 0, "")
  vocabulary = types.SimpleNamespace(encode=None)
  methods = setup.initialise(job.experiment, backbone, vocabulary, mesh)
  real = setup.build(
    job.experiment, params, methods, 0, mesh, job.source.mesh.rules
  )
  described = describe(job, mesh)
  assert _signature(described.frozen) == _signature(real.frozen)
  assert _signature(described.state) == _signature(real.state)
  assert described.program.partition == real.program.partition


def test_a_step_is_compiled_once_without_a_mesh():
  """A fresh state and a returned one are the same kind of input."""
  planned = job()
  # A restored model is bound to its device.
  params = jax.device_put(
    network.init_params(planned.experiment.model, jax.random.key(0)),
    jax.devices()[0],
  )
  vocabulary = types.SimpleNamespace(encode=None)
  backbone = Backbone(planned.experiment.model, params, 0, "")
  methods = setup.initialise(planned.experiment, backbone, vocabulary, None)
  parts = setup.build(
    planned.experiment, params, methods, 0, None, planned.source.mesh.rules
  )
  ids = jnp.ones((8, 4), jnp.int32)
  names = ("encoder_input", "decoder_input", "decoder_target")
  batch = {f"{name}_tokens": ids for name in names}
  batch["run_ids"] = jnp.arange(8, dtype=jnp.int32) % len(
    planned.experiment.runs
  )
  step = jax.jit(parts.program.step)
  after, _ = step(parts.state, parts.frozen, batch)
  step(after, parts.frozen, batch)
  assert step._cache_size() == 1


def test_the_largest_model_has_a_step_of_its_own():
  """A count of its parameters is beyond int32."""
  xxl = t5_config.get("t5_1_1_xxl", scan_layers=True)
  planned = tuned_model(model=xxl, restore_dtype="float32")
  described = describe(planned, axes.make_mesh(4, 2))
  after, _ = jax.eval_shape(
    described.program.step, described.state, described.frozen, described.batch
  )
  shapes = jax.tree.map(lambda leaf: leaf.shape, described.state)
  assert jax.tree.map(lambda leaf: leaf.shape, after) == shapes


@dataclasses.dataclass(frozen=True)
class Tokens:
  inputs: Ragged
  targets: Ragged
  lengths: dict
  key: str = ""


@pytest.mark.parametrize("batching", ["fixed", "packed"])
def test_batch_is_what_the_pipeline_makes(batching):
  packed = {"inputs": 112, "targets": 8}
  planned = job(
    dataset=Dataset(
      TASK, LENGTHS, batch_size=8, batching=batching, packed_lengths=packed
    )
  )
  rows = Ragged(np.ones(4 * 32, np.int32), np.arange(0, 4 * 33, 4))
  (placement,) = placements_of(planned.experiment.tuners, 1)
  batches = pipeline.TrainBatches(
    Tokens(rows, rows, LENGTHS),
    8,
    seed=0,
    layout=pipeline.Layout(placement, planned.experiment.model.vocab_size),
    batching=batching,
    packed_size=planned.experiment.dataset.packed_size,
  )
  real = axes.batch_sharder(axes.make_mesh(4, 2), planned.source.mesh.rules)(
    next(iter(batches))
  )
  described = describe(planned, axes.make_mesh(4, 2)).batch
  assert _signature(dict(described)) == _signature(dict(real))


def test_runs_of_a_bank_have_rows_of_their_own():
  batch = describe(job(seeds=(0, 1, 2)), axes.make_mesh(8, 1)).batch
  assert batch["run_ids"].shape == (24,)
  assert batch["encoder_input_tokens"].shape == (24, 112)


def test_initial_values_need_neither_vocabulary_nor_labels():
  labelled = functools.partial(Prompt, encoder_init=ClassLabels())
  described = describe(job(tuner=labelled), axes.make_mesh(8, 1))
  (leaf,) = jax.tree.leaves(described.state.trainable)
  assert leaf.shape == (1, 100, 4)


@pytest.mark.parametrize(
  ("changes", "mesh", "says"),
  [
    ({}, (1, 8), "cannot split"),
    (
      {"dataset": Dataset(TASK, LENGTHS, batch_size=6)},
      (4, 2),
      "BATCH_SIZE",
    ),
  ],
)
def test_a_mesh_at_fault_says_so(changes, mesh, says):
  with pytest.raises(abstract_setup.MeshError, match=says):
    describe(job(**changes), axes.make_mesh(*mesh))


@pytest.mark.parametrize(
  ("dataset", "says"),
  [
    (Dataset(TASK, None, batch_size=8), "TASK_FEATURE_LENGTHS"),
    (Dataset(TASK, LENGTHS, batch_size=8, batching="packed"), "PACKED_LENGTHS"),
  ],
)
def test_lengths_that_only_the_data_know_are_asked_for(dataset, says):
  with pytest.raises(ValueError, match=says):
    describe(job(dataset=dataset), axes.make_mesh(8, 1))
