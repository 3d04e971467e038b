"""Lower bounds on a training's time and memory on TPUs, by arithmetic.

This compiles no program, so it checks a sweep of hundreds of trainings in
seconds. A job that is too large here is too large; another may be too large
all the same. `tpu` asks the compiler.
"""

from collections.abc import Mapping

import jax.numpy as jnp

from prompt_tuning.jobs.train_job import TrainJob
from prompt_tuning.models.t5 import cost, quantized
from prompt_tuning.plans.chips import CHIPS, GIB, Slice

_HOUR = 3_600


def chip_hours(flops: float) -> Mapping[str, float]:
  """Divide work by the peak rate of a chip.

  Args:
    flops: floating-point operations.

  Returns:
    Generation -> hours of one chip at its peak.
  """
  return {name: flops / chip.flops / _HOUR for name, chip in CHIPS.items()}


def misfit(job: TrainJob, tpu_slice: Slice) -> str | None:
  """Say why a job cannot fit on a slice, whatever the mesh.

  Args:
    job: what to train.
    tpu_slice: the chips.

  Returns:
    The reason, and what can be done; None if the weights, of tuned models with
    their gradients, fit when split over all chips.
  """
  counts = cost.count_parameters(job.experiment.model)
  number = sum(counts.values())
  width = quantized.itemsize(jnp.dtype(job.source.restore_dtype))
  what, advice = "weights", ", or a RESTORE_DTYPE with fewer bytes"
  if not job.experiment.tuners:  # each run has its own model and gradient
    number, width = number * len(job.experiment.runs) * 2, 4
    what, advice = "weights and gradients", ""
  needed = number * width / tpu_slice.linked  # every slice has the model
  memory = tpu_slice.chip.memory
  if needed <= memory:
    return None
  return (
    f"{what} take {needed / GIB:.1f} GiB of each of the {tpu_slice.linked} "
    f"chips of {tpu_slice}; each has {memory / GIB:.1f} GiB. Use a larger "
    f"slice{advice}."
  )
