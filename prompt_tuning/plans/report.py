"""Plans as text for people and as JSON values for programs."""

from collections.abc import Sequence
from typing import Any

from prompt_tuning.core.axes import FULLY_SHARDED_RULES
from prompt_tuning.jobs.train_job import TrainJob
from prompt_tuning.models.t5 import quantized
from prompt_tuning.plans import tpu
from prompt_tuning.plans.chips import GIB, Slice
from prompt_tuning.plans.compiled_cost import REDUCTIONS, Collective, Cost
from prompt_tuning.plans.tpu import Plan

_HEADER = (
  "data x model",
  "weights",
  "trained",
  "temporaries",
  "total",
  "TFLOP",
  "sent",
  "at least",
  "limit",
)


def lines(job: TrainJob, tpu_slice: Slice, plans: Sequence[Plan]) -> list[str]:
  """Describe the plans of one slice.

  Args:
    job: what was planned.
    tpu_slice: the slice.
    plans: one per mesh.

  Returns:
    Lines of text; bytes, operations and seconds are of one chip and one step.
  """
  chip = tpu_slice.chip
  rows = [_HEADER, *map(_row, plans)]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  text = [
    f"{_named(tpu_slice)}: {_counted(tpu_slice.count, 'chip')}, "
    f"{_gib(chip.memory)} of memory for each",
    *("  " + "  ".join(map(str.rjust, row, widths)).rstrip() for row in rows),
  ]
  text += [
    f"  {one.data} x {one.model}: {_in_one_line(one.failure)}"
    for one in plans
    if one.failure
  ]
  best = tpu.best(plans)
  if best is None or best.cost is None:
    return [*text, f"  Does not fit. {advice(job, tpu_slice, plans)}"]
  text += _best_lines(best, best.cost)
  return [*text, f"  Rates of the chip: {chip.source}"]


def _named(tpu_slice: Slice) -> str:
  if tpu_slice.copies == 1:
    return str(tpu_slice)
  return f"{tpu_slice.copies} slices of {tpu_slice}"


def _row(one: Plan) -> tuple[str, ...]:
  mesh = f"{one.data} x {one.model}"
  weights = _gib(one.weights) if one.weights else "-"
  if one.footprint is None or one.cost is None:
    needed = "-" if one.needed is None else _gib(one.needed)
    return (mesh, weights, "-", "-", needed, "-", "-", "-", "-")
  sent = sum(collective.sent for collective in one.cost.collectives)
  return (
    mesh,
    weights,
    _gib(one.footprint.trained),
    _gib(one.footprint.temporaries),
    _gib(one.footprint.total),
    f"{one.cost.flops / 1e12:.3g}",
    _gib(sent),
    f"{one.bound * 1e3:.3g} ms",
    max(one.times, key=lambda name: one.times[name]),
  )


def _best_lines(best: Plan, cost: Cost) -> list[str]:
  text = [
    f"  Fits; cheapest: {best.data} x {best.model}, at least "
    f"{best.bound * 1e3:.3g} ms a step ("
    + ", ".join(f"{n} {t * 1e3:.3g}" for n, t in best.times.items())
    + ")."
  ]
  for kind, (count, nbytes) in sorted(cost.by_kind().items()):
    text.append(f"  {kind}: {count:,} in a step, of {_gib(nbytes)}")
  reduced = sum(one.times * one.nbytes for one in data_reductions(best))
  if best.data > 1:
    text.append(
      f"  of that, {_bytes(reduced)} are summed over data-parallel chips: "
      "gradients, and the sums of the loss"
    )
  if best.slice.copies > 1:
    text.append(
      f"  between slices, over the data center's network: "
      f"{_bytes(cost.to_slices)} from a chip"
    )
  if cost.unknown_loops:
    text.append(
      f"  {_counted(cost.unknown_loops, 'loop')} of unknown length counted as "
      "if it ran once, so the bound is too low."
    )
  return text


def data_reductions(one: Plan) -> list[Collective]:
  """List the reductions over a slice's chips with different rows of a batch.

  If weights have a gradient, it must be among them.
  """
  if one.cost is None:
    return []
  return [
    collective
    for collective in one.cost.collectives
    if collective.kind in REDUCTIONS
    and collective.crosses(0, (one.data // one.slice.copies, one.model))
  ]


def advice(job: TrainJob, tpu_slice: Slice, plans: Sequence[Plan]) -> str:
  """Say what to try next if no mesh fits.

  Args:
    job: what was planned.
    tpu_slice: the slice.
    plans: one per mesh that was tried.

  Returns:
    One sentence or more, the cheapest advice first.
  """
  experiment, source = job.experiment, job.source
  if not any(p.weights for p in plans):  # none was held against the memory
    return (
      "No mesh that was tried can split the step over "
      f"{_counted(tpu_slice.count, 'chip')}. Try a smaller slice, or a "
      "BATCH_SIZE that more chips can share (it is "
      f"{experiment.dataset.batch_size})."
    )
  least = min(p.weights for p in plans if p.weights)
  is_frozen = not any(p.trains_model for p in plans)
  steps = []
  if least > tpu_slice.chip.memory / 2:
    if is_frozen and source.restore_dtype == "float32":
      steps.append(
        "frozen weights of half the size: RESTORE_DTYPE = 'bfloat16'"
      )
    is_split = tuple(source.mesh.rules) == tuple(FULLY_SHARDED_RULES)
    if tpu_slice.linked > 1 and not is_split:
      steps.append(
        "weights split over all chips: meshes/fully_sharded.gin, "
        "MODEL_PARALLEL = 1"
      )
    if is_frozen and quantized.scheme(source.restore_dtype) is None:
      steps.append("frozen weights of one byte: RESTORE_DTYPE = 'int8'")
  if least <= tpu_slice.chip.memory:
    model = experiment.model
    if not (model.remat_policy == "full" and model.scan_layers):
      steps.append(
        "activations computed again in the backward pass: SCAN_LAYERS = True, "
        "REMAT = 'full'"
      )
    steps.append(
      "fewer rows at a time: NUM_MICROBATCHES above "
      f"{experiment.num_microbatches}, or BATCH_SIZE below "
      f"{experiment.dataset.batch_size}"
    )
    if len(plans) < len(tpu.candidates(tpu_slice)):
      steps.append("more model parallelism: a larger MODEL_PARALLEL")
  steps.append("a larger slice, or chips with more memory")
  return "Try, in this order: " + "; ".join(steps) + "."


def as_json(job: TrainJob, tpu_slice: Slice, plans: Sequence[Plan]) -> dict:
  """Describe the plans of one slice in JSON's types; bytes and seconds.

  Args:
    job: what was planned.
    tpu_slice: the slice.
    plans: one per mesh.

  Returns:
    Topology of a slice, number of slices, chips in all slices, memory, best
    mesh (or None), advice (or None), plans.
  """
  best = tpu.best(plans)
  return {
    "topology": str(tpu_slice),
    "slices": tpu_slice.copies,
    "chips": tpu_slice.count,
    "memory": tpu_slice.chip.memory,
    "source": tpu_slice.chip.source,
    "best": None if best is None else [best.data, best.model],
    "advice": None if best else advice(job, tpu_slice, plans),
    "plans": [_plan_json(one) for one in plans],
  }


def _plan_json(one: Plan) -> dict[str, Any]:
  values: dict[str, Any] = {
    "data": one.data,
    "model": one.model,
    "fits": one.fits,
    "failure": one.failure,
    "weights": one.weights,
    "needed": one.needed,
    "compile_seconds": one.seconds,
  }
  if one.footprint is None or one.cost is None:
    return values
  footprint = one.footprint
  return values | {
    "trained": footprint.trained,
    "arguments": footprint.arguments,
    "temporaries": footprint.temporaries,
    "total": footprint.total,
    "flops": one.cost.flops,
    "moved": one.moved,
    "collectives": {
      kind: {"count": count, "bytes": nbytes}
      for kind, (count, nbytes) in one.cost.by_kind().items()
    },
    "reduced_over_data": sum(c.times * c.nbytes for c in data_reductions(one)),
    "sent": sum(c.sent for c in one.cost.collectives),
    "to_slices": one.cost.to_slices,
    "at_least": one.times,
    "unknown_loops": one.cost.unknown_loops,
  }


def _in_one_line(failure: str) -> str:
  """Shorten a failure to its message and the first entry of its list."""
  says, *listed = (line.strip() for line in failure.splitlines())
  if not listed:
    return says
  others = f", and {len(listed) - 1:,} more" if len(listed) > 1 else ""
  return f"{says} {listed[0]}{others}"


def _counted(number: int, noun: str) -> str:
  return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _gib(nbytes: float) -> str:
  return f"{nbytes / GIB:.2f} GiB" if nbytes >= GIB / 100 else _bytes(nbytes)


def _bytes(nbytes: float) -> str:
  for unit, size in (("MiB", 2**20), ("KiB", 2**10)):
    if nbytes >= size:
      return f"{nbytes / size:,.1f} {unit}"
  return f"{nbytes:.0f} B"
