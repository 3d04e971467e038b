"""Compile the training step for TPUs that this machine does not have.

`libtpu` has the compiler, which runs on any CPU. The step itself does not run.
"""

import dataclasses
import importlib.util
import math
import os
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from prompt_tuning.core import axes, tree
from prompt_tuning.jobs import abstract_setup
from prompt_tuning.jobs.train_job import TrainJob
from prompt_tuning.models.t5 import quantized
from prompt_tuning.plans import compiled_cost
from prompt_tuning.plans.chips import GIB, Slice
from prompt_tuning.plans.compiled_cost import Cost
from prompt_tuning.train.step import AbstractStep

# Without these, libtpu asks the network for seconds which TPU it runs on,
# prints warnings, and locks out other processes.
_ENVIRONMENT: Mapping[str, str] = {
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_SKIP_MDS_QUERY": "1",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Footprint:
  """Bytes on one chip, at the moment of a step when most are in use.

  The compiler leaves gaps between arrays, of a few percent if there is room. It
  makes no program that does not fit with its gaps.

  Attributes:
    trained: of everything that trains: all runs' parameters and the optimizer.
    arguments: of all arguments of the step, as the compiler lays them out.
    temporaries: of the step's temporaries, activations above all.
    total: of everything together, with the program's code.
  """

  trained: float
  arguments: float
  temporaries: float
  total: float


@dataclasses.dataclass(frozen=True)
class Plan:
  """The step on one mesh of a slice.

  Attributes:
    slice: the chips.
    data: data-parallel ways of all slices together.
    model: model-parallel ways.
    failure: why there is no program; None if there is one.
    footprint: bytes on a chip; None without a program.
    needed: bytes that the program would need if it does not fit, if known.
    weights: bytes of the model on a chip, frozen and trained; 0 if unknown.
    trains_model: whether any of the model's own parameters trains.
    cost: work of one chip in a step; None without a program.
    moved: bytes that a step must read from or write to memory.
    seconds: time to compile, in seconds; 0 without a program.
  """

  slice: Slice
  data: int
  model: int
  failure: str | None = None
  footprint: Footprint | None = None
  needed: float | None = None
  weights: float = 0.0
  trains_model: bool = False
  cost: Cost | None = None
  moved: float = 0.0
  seconds: float = 0.0

  @property
  def fits(self) -> bool:
    """Whether there is a program."""
    return self.footprint is not None

  @property
  def times(self) -> dict[str, float]:
    """Least seconds for arithmetic, memory, links and network."""
    if self.cost is None:
      return {}
    chip = self.slice.chip
    sent = sum(one.sent for one in self.cost.collectives)
    times = {
      "arithmetic": self.cost.flops / chip.flops,
      "memory": self.moved / chip.memory_bandwidth,
      "links": sent / chip.link_bandwidth,
    }
    if self.slice.copies > 1:
      times["network"] = self.cost.to_slices / chip.network_bandwidth
    return times

  @property
  def bound(self) -> float:
    """Least seconds of a step; infinite if it does not fit."""
    return max(self.times.values(), default=math.inf)


def plan(job: TrainJob, tpu_slice: Slice, model: int) -> Plan:
  """Compile the step for one mesh.

  Args:
    job: the training; its own mesh gives the axis rules only.
    tpu_slice: the chips.
    model: model-parallel ways; the rest of the chips share the batch.

  Returns:
    The plan; a mesh that cannot work gives a plan with `failure`.

  Raises:
    ValueError: `libtpu` is missing or does not know the slice, or the job
      cannot be planned on any mesh.
  """
  data = tpu_slice.count // model
  try:
    mesh = make_mesh(tpu_slice, data, model)
    step = abstract_setup.describe(job.experiment, job.source, mesh)
  except abstract_setup.MeshError as error:
    return Plan(tpu_slice, data, model, failure=str(error))
  unfinished = Plan(
    *(tpu_slice, data, model),
    weights=model_bytes(step),
    trains_model=step.program.partition.trains("model"),
  )
  if unfinished.weights > tpu_slice.chip.memory:
    return dataclasses.replace(unfinished, failure="weights alone do not fit")
  started = time.perf_counter()
  lowered = jax.jit(step.program.step, donate_argnums=0).lower(*step.arguments)
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    needed = needed_memory(str(error))
    if needed is None:
      raise ValueError(
        f"The TPU compiler failed for {tpu_slice}: {str(error)[:2_000]}"
      ) from error
    return dataclasses.replace(
      unfinished, failure="out of memory", needed=needed
    )
  return dataclasses.replace(
    unfinished,
    footprint=_footprint(compiled, step),
    cost=compiled_cost.read(compiled.as_text() or "", tpu_slice.linked),
    moved=_moved(compiled, step),
    seconds=time.perf_counter() - started,
  )


def make_mesh(tpu_slice: Slice, data: int, model: int) -> Mesh:
  """Arrange the chips of a slice as training would.

  Args:
    tpu_slice: the chips.
    data: data-parallel ways.
    model: model-parallel ways.

  Returns:
    A mesh of devices that only a compiler can use.

  Raises:
    ValueError: `libtpu` is missing, or does not know the slice.
    MeshError: JAX cannot arrange the chips like this.
  """
  try:
    return axes.make_mesh(data, model, devices=_devices(tpu_slice))
  except NotImplementedError as error:
    raise abstract_setup.MeshError(
      "JAX cannot lay this mesh on the slice"
    ) from error


def _devices(tpu_slice: Slice) -> Any:
  """Ask libtpu for the chips of a slice."""
  if importlib.util.find_spec("libtpu") is None:
    raise ValueError(
      "Planning needs the TPU compiler. To get it, run pip install "
      "'prompt-tuning[plan]'."
    )
  for name, value in _ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  settings: Any = jax.config
  if not settings.jax_platforms:  # or JAX looks for the TPU itself
    jax.config.update("jax_platforms", "cpu")
  from jax.experimental import topologies

  options: dict[str, Any] = {}
  if tpu_slice.generation == "v4":
    options["chip_config_name"] = "megacore"  # a chip's two cores as one device
  if tpu_slice.copies > 1:
    options["num_slices"] = tpu_slice.copies
  if tpu_slice.linked < 4:
    depth = (1,) * (3 - len(tpu_slice.shape))
    options["chips_per_host_bounds"] = [*tpu_slice.shape, *depth]
  try:
    described = topologies.get_topology_desc(
      platform="tpu", topology_name=str(tpu_slice), **options
    )
  except jax.errors.JaxRuntimeError as error:
    raise ValueError(f"--topology {tpu_slice}: {error}") from error
  return described.devices


def needed_memory(message: str) -> float | None:
  """Read from an error how many bytes a program would need.

  Args:
    message: of the compiler.

  Returns:
    Bytes on one chip; None if the error is about something else.
  """
  if "RESOURCE_EXHAUSTED" not in message:
    return None
  match = re.search(r"Used ([\d.]+)([KMGT]) of", message) or re.search(
    r"required [^(]*\(([\d.]+)([KMGT])\)", message
  )
  if match is None:
    return None
  return float(match[1]) * GIB * 1024.0 ** ("KMGT".index(match[2]) - 2)


def _bytes(leaves: Iterable[Any]) -> float:
  """Add up the bytes that one chip has of some described arrays."""
  return float(
    sum(
      math.prod(leaf.sharding.shard_shape(leaf.shape))
      * quantized.itemsize(leaf.dtype)
      for leaf in leaves
    )
  )


def model_bytes(step: AbstractStep) -> float:
  """Add up the model's bytes on one chip, frozen and trained."""
  both = {"frozen": step.frozen, "trainable": step.state.trainable}
  return _bytes(
    leaf for path, leaf in tree.flatten(both).items() if "/model/" in path
  )


def _footprint(compiled: Any, step: AbstractStep) -> Footprint:
  stats = compiled.memory_analysis()
  arguments = stats.argument_size_in_bytes
  # Do not use `temp_size_in_bytes`: it counts more than the compiler allots.
  # For XXL on one v6e it says 12.8 GiB; the compiler's buffer assignment has
  # 9.0.
  peak = stats.peak_memory_in_bytes
  return Footprint(
    trained=_bytes(jax.tree.leaves(step.state)),
    arguments=arguments,
    temporaries=peak - arguments,
    total=peak + stats.generated_code_size_in_bytes,
  )


def _moved(compiled: Any, step: AbstractStep) -> float:
  """Count the bytes that must pass through memory: arguments and results, once.

  The embedding table does not count, because a step reads only some of its
  rows.
  """
  stats = compiled.memory_analysis()
  flat = tree.flatten(step.frozen)
  tables = _bytes(
    leaf for path, leaf in flat.items() if "/token_embedder/" in path
  )
  moved = stats.argument_size_in_bytes + stats.output_size_in_bytes - tables
  return float(max(moved, 0.0))


def candidates(tpu_slice: Slice) -> list[int]:
  """List model-parallel ways to try, the fewest first."""
  count = tpu_slice.linked
  return [ways for ways in range(1, count + 1) if not count % ways]


def best(plans: Iterable[Plan]) -> Plan | None:
  """Choose the plan with the lowest bound among those that fit.

  Args:
    plans: of one slice.

  Returns:
    The fastest; if bounds are equal to three digits, the one with the least to
    overlap, then the one with the least memory. None if none fits.
  """
  fitting = [one for one in plans if one.footprint is not None]
  return min(
    fitting,
    key=lambda one: (
      float(f"{one.bound:.2e}"),
      sum(one.times.values()),
      one.footprint.total if one.footprint else math.inf,
    ),
    default=None,
  )


def plan_slice(
  job: TrainJob, tpu_slice: Slice, meshes: str = "all"
) -> list[Plan]:
  """Compile a job's step for the meshes of one slice.

  Args:
    job: what to do.
    tpu_slice: the chips.
    meshes: `all`, `first` (that fits) or `given` (the job's).

  Returns:
    One plan per mesh that was tried.

  Raises:
    ValueError: the slice or the job cannot be planned at all.
  """
  ways = candidates(tpu_slice)
  if meshes == "given":
    model_parallel = job.source.mesh.model
    if model_parallel not in ways:
      raise ValueError(
        f"MODEL_PARALLEL = {model_parallel} does not divide the number of "
        f"chips of {tpu_slice}, {tpu_slice.linked}."
      )
    ways = [model_parallel]
  plans: list[Plan] = []
  for model in ways:
    plans.append(plan(job, tpu_slice, model))
    if meshes == "first" and plans[-1].fits:
      break
  return plans
