"""Descriptions of a step's inputs and outputs, without allocating them."""

import contextlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from prompt_tuning.core import axes
from prompt_tuning.core.placement import Placement
from prompt_tuning.core.types import Array, Params
from prompt_tuning.data import assembly as data_assembly
from prompt_tuning.data.ragged import Ragged
from prompt_tuning.jobs import identity, setup
from prompt_tuning.jobs.settings import Dataset
from prompt_tuning.jobs.train_job import Experiment, ModelSource
from prompt_tuning.models.t5 import network, quantized
from prompt_tuning.train.step import AbstractStep
from prompt_tuning.tuners import bank
from prompt_tuning.tuners.bank import Bank
from prompt_tuning.tuners.initializers import InitializerContext


class MeshError(ValueError):
  """The mesh does not fit; with another one, the job might work."""


class UnknownShapesError(ValueError):
  """A method's settings alone do not decide the shapes of its parameters."""


def describe(
  experiment: Experiment,
  source: ModelSource,
  mesh: Mesh | None,
  start_step: int = 0,
  batch: Mapping[str, jax.ShapeDtypeStruct] | None = None,
) -> AbstractStep:
  """Describe the step that training would run on a mesh.

  Args:
    experiment: the experiment; its data are not read.
    source: source of the model; its checkpoint is not read. Of its mesh, only
      the axis rules are used.
    mesh: a mesh of any devices, also of devices that this machine does not
      have; None for the default device.
    start_step: first step of the optimizer.
    batch: the batch of a step; None for the longest possible batch.

  Returns:
    The program, and the arguments for lowering its step.

  Raises:
    MeshError: the mesh cannot shard the model or the batch.
    ValueError: the longest batch is not known without the data.
  """
  rules = source.mesh.rules
  try:
    restored = axes.restore_target(
      network.abstract_params(experiment.model),
      network.logical_axes(experiment.model),
      mesh,
      rules,
      quantized.float_dtype(source.restore_dtype),
    )
  except ValueError as error:
    raise MeshError(str(error)) from error
  if batch is None:
    batch = _longest_batch(experiment, mesh, rules)
  model = quantized.target(restored, source.restore_dtype)
  if mesh is None:  # restored arrays are bound to the device
    model = axes.put(model, axes.everywhere(mesh))
  methods = None
  if experiment.tuners:
    methods = _initialise(experiment, restored["token_embedder"]["embedding"])
  try:
    described = setup.build(experiment, model, methods, start_step, mesh, rules)
  except axes.UnevenError as error:
    raise MeshError(str(error)) from error
  return AbstractStep(
    described.program, described.state, described.frozen, batch
  )


def check_methods(experiment: Experiment, source: ModelSource) -> None:
  """Refuse tuning methods that cannot train the model, before it is read.

  Args:
    experiment: the experiment; its data are not read.
    source: source of the model; its checkpoint is not read.

  Raises:
    ValueError: a method cannot train, as in training. If the settings alone do
      not decide a method's shapes, it passes here, and is checked when the
      model has been read.
  """
  if not experiment.tuners:
    return
  with contextlib.suppress(UnknownShapesError):
    describe(experiment, source, mesh=None, batch={})


def _initialise(experiment: Experiment, table: jax.ShapeDtypeStruct) -> Bank:
  """Describe the parameters of all runs without computing initial values."""
  tuners = list(map(identity.without_initialisers, experiment.tuners))
  names: dict[str, Params] = {}

  def initialise(table: Array) -> Params:
    # These initialisers stand in for the real ones, which run later.
    contexts = [
      InitializerContext(
        embeddings=table,
        warn=lambda _: None,
        output_rows=lambda ids: table[jnp.asarray(ids)],
      )
      for _ in tuners
    ]
    keys = [jax.random.key(run.seed) for run in experiment.runs]
    made = bank.init_bank(tuners, keys, contexts)
    names["axes"] = made.axes  # no arrays, which is all that may be returned
    return made.params

  bare = jax.ShapeDtypeStruct(table.shape, table.dtype)
  try:
    shapes = jax.eval_shape(initialise, bare)
  except bank.BankError:
    raise
  except Exception as error:
    # A user's method may read values, files or words.
    raise UnknownShapesError(
      "The sizes of its parameters cannot be computed without initialising "
      f"it: {error}"
    ) from error
  return Bank(shapes, names["axes"])


def _longest_batch(
  experiment: Experiment, mesh: Mesh | None, rules: axes.AxisRules
) -> Mapping[str, jax.ShapeDtypeStruct]:
  """Describe the longest batch that training can meet."""
  runs = len(experiment.runs)
  placements = identity.placements_of(experiment.tuners, runs)
  rows = experiment.dataset.batch_size * runs
  ways = axes.row_ways(mesh)
  if rows % ways:
    raise MeshError(
      f"A batch of {rows} rows cannot be split over {ways} data-parallel ways; "
      "change BATCH_SIZE or the mesh."
    )
  nothing = Ragged(np.zeros(0, np.int32), np.zeros(1, np.int64))
  writer = data_assembly.Assembler(nothing, nothing, Placement(), 0)
  places = data_assembly.one_per_row(
    np.zeros(0, np.int64), (rows, *_lengths(experiment.dataset, placements))
  )
  arrays = writer(places, packed=experiment.dataset.batching == "packed")
  if runs > 1:
    arrays["run_ids"] = np.zeros(rows, np.int32)
  if any(tuner.conditions for tuner in experiment.tuners):
    arrays["task_ids"] = np.zeros(rows, np.int32)
  return axes.describe_batch(mesh, rules, arrays)


def _lengths(
  dataset: Dataset, placements: tuple[Placement, ...]
) -> tuple[int, int]:
  """Return encoder and decoder positions of the longest batch."""
  if dataset.batching == "packed":
    if dataset.packed_size is None:
      raise ValueError(
        "The length of packed rows is chosen from the data; set "
        "PACKED_LENGTHS to plan without the data."
      )
    return dataset.packed_size
  missing = [name for name, limit in dataset.lengths.items() if limit is None]
  if missing:
    raise ValueError(
      f"TASK_FEATURE_LENGTHS sets no limit for {' and '.join(missing)}; set a "
      "limit to plan without the data."
    )
  virtual = (
    max(p.encoder_length for p in placements),
    max(p.decoder_length for p in placements),
  )
  limits = (dataset.lengths["inputs"], dataset.lengths["targets"])
  encoder, decoder = (
    (limit or 0) + more for limit, more in zip(limits, virtual, strict=True)
  )
  return encoder, decoder
