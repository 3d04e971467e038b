"""What crosses devices in a step, compiled for eight simulated ones.

The step is that of training and is read as `plan` reads it: so what plans say
of TPUs is tested where no TPU compiler is.
"""

import dataclasses
import functools
import math

import jax
import pytest

from prompt_tuning.core import axes, partition, tree
from prompt_tuning.jobs import abstract_setup
from prompt_tuning.jobs.settings import Dataset, MeshShape
from prompt_tuning.jobs.train_job import ModelSource, from_settings
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.plans import chips, compiled_cost, report, tpu
from prompt_tuning.tuners.prompt import Prompt

LENGTH, WIDTH = 3, 32
MESHES = {
  "data": (8, 1, axes.STANDARD_RULES),
  "data and model": (4, 2, axes.STANDARD_RULES),
  "fully sharded": (4, 2, axes.FULLY_SHARDED_RULES),
}


def make_job(mesh, **changes):
  _, ways, rules = MESHES[mesh]
  lengths = {"inputs": 9, "targets": 4}
  settings = {
    "model_dir": "unused",
    "model": t5_config.get(
      "t5_1_1_tiny",
      vocab_size=256,
      emb_dim=WIDTH,
      num_heads=4,
      head_dim=8,
      mlp_dim=64,
      relpos_buckets=8,
      dropout_rate=0.0,
      scan_layers=True,
    ),
    "initial_checkpoint_path": None,
    "dataset": Dataset("taskless_super_glue_rte_v102", lengths, batch_size=8),
    "relative_steps": 1,
    "tuner": functools.partial(Prompt, encoder_length=LENGTH),
    "restore_dtype": "float32",
    "mesh": MeshShape(None, ways, rules),
  }
  return from_settings(**settings | changes)


def tuned_model(mesh, **changes):
  return make_job(
    mesh,
    tuner=None,
    rules=partition.EVERYTHING,
    learning_rates=1e-3,
    **changes,
  )


def compiled_plan(mesh, job):
  """Plan as `plan` does, with this machine's compiler."""
  data, model, _ = MESHES[mesh]
  step = abstract_setup.describe(
    job.experiment, job.source, axes.make_mesh(data, model)
  )
  lowered = jax.jit(step.program.step, donate_argnums=0).lower(*step.arguments)
  cost = compiled_cost.read(lowered.compile().as_text(), data * model)
  assert not cost.unknown_loops
  return tpu.Plan(chips.parse("v5e:2x4"), data, model, cost=cost)


def total(collectives):
  return sum(one.times * one.nbytes for one in collectives)


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("mesh", MESHES)
def test_no_weight_gradient_crosses_chips_in_prompt_tuning(mesh, runs):
  found = compiled_plan(mesh, make_job(mesh, seeds=tuple(range(runs))))
  gradient = runs * LENGTH * WIDTH * 4
  # Virtual tokens may stand in both stacks, and only a TPU's compiler adds up
  # their gradients before it sends them. Eight numbers of every run are sums of
  # the loss and the like; the smallest weight has 32.
  reduced = total(report.data_reductions(found))
  assert gradient <= reduced <= 2 * gradient + 8 * 4 * runs


@pytest.mark.parametrize("mesh", ["data", "data and model"])
def test_nothing_else_leaves_the_devices_of_a_row(mesh):
  found = compiled_plan(mesh, make_job(mesh))
  shape = found.data, found.model
  crossing = [one for one in found.cost.collectives if one.crosses(0, shape)]
  assert crossing == report.data_reductions(found)


def test_of_a_prompt_its_gradient_alone_crosses_slices():
  """Weights are split over a slice's chips; between slices nothing is sent.

  Two slices of four devices, 2 data x 2 model, stand in for TPUs that only the
  data center's network joins.
  """
  job = make_job("fully sharded")
  mesh = axes.make_mesh(4, 2, slices=2)
  step = abstract_setup.describe(job.experiment, job.source, mesh)
  lowered = jax.jit(step.program.step, donate_argnums=0).lower(*step.arguments)
  cost = compiled_cost.read(lowered.compile().as_text(), 8)
  crossing = [one for one in cost.collectives if one.crosses(0, (2, 2, 2))]
  assert {one.kind for one in crossing} == {compiled_cost.ALL_REDUCE}
  gradient = LENGTH * WIDTH * 4
  assert gradient <= total(crossing) <= 2 * gradient + 8 * 4
  # Weights do cross, within a slice.
  assert any(one.kind == compiled_cost.ALL_GATHER for one in cost.collectives)


@pytest.mark.parametrize("method", [make_job, tuned_model])
def test_what_layers_exchange_does_not_grow_with_the_rows(method):
  """Weights are gathered, a layer at a time; rows stay where they are.

  Only a look-up in the split table of embeddings sends something of every row.
  """
  mesh = "fully sharded"
  exchanged = []
  for rows in (8, 32):
    job = method(mesh)
    dataset = dataclasses.replace(job.experiment.dataset, batch_size=rows)
    found = compiled_plan(mesh, method(mesh, dataset=dataset))
    shape = found.data, found.model
    exchanged.append(
      total(
        one
        for one in found.cost.collectives
        if one.crosses(0, shape) and "/layers/" in one.source
      )
    )
  few, many = exchanged
  assert 0 < many <= few


@pytest.mark.parametrize("mesh", MESHES)
def test_weight_gradients_cross_chips_in_model_tuning(mesh):
  """The same reader sees them where they are."""
  found = compiled_plan(mesh, tuned_model(mesh))
  assert total(report.data_reductions(found)) >= kernel_bytes(mesh)


def kernel_bytes(mesh):
  """Bytes that every kernel has on a chip but for a split over rows."""
  data, model, _ = MESHES[mesh]
  unsplit = MeshShape(None, model, axes.STANDARD_RULES)
  step = abstract_setup.describe(
    tuned_model(mesh).experiment,
    ModelSource(None, mesh=unsplit),
    axes.make_mesh(data, model),
  )
  return sum(
    leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
    for path, leaf in tree.flatten(step.state.trainable).items()
    if path.endswith("kernel")
  )
