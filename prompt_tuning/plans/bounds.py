"""What a training takes on TPUs at least, by arithmetic alone.

No program is compiled, so that a sweep of hundreds of trainings is looked
through in seconds: what is found too large here is too large, what is not may
still be. `tpu` asks the compiler.
"""

from collections.abc import Mapping

import jax.numpy as jnp

from prompt_tuning.jobs.train_job import TrainJob
from prompt_tuning.models.t5 import cost, quantized
from prompt_tuning.plans.chips import CHIPS, GIB, Slice

_HOUR = 3_600


def chip_hours(flops: float) -> Mapping[str, float]:
  """Divide work by what chips can do.

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
    The reason; None where the weights, split over all chips, fit.
  """
  counts = cost.count_parameters(job.experiment.model)
  number = sum(counts.values())
  width = quantized.itemsize(jnp.dtype(job.source.restore_dtype))
  if not job.experiment.tuners:  # each run has its own, and its gradient
    number, width = number * len(job.experiment.runs) * 2, 4
  needed = number * width / tpu_slice.linked  # every slice has the model
  memory = tpu_slice.chip.memory
  if needed <= memory:
    return None
  return (
    f"weights take {needed / GIB:.1f} GiB of each of the "
    f"{tpu_slice.linked} chips of {tpu_slice}, which have "
    f"{memory / GIB:.1f}"
  )
