"""The seqio task or mixture of any spec, registered when first needed."""

import functools
import importlib

import seqio

from prompt_tuning.data import sentinel_targets as of_sentinels
from prompt_tuning.data import spec
from prompt_tuning.data.tasks import (
  corpus,
  custom,
  kshot,
  ppt,
  sentinel_targets,
  templated,
)


def get(name: str) -> seqio.Task | seqio.Mixture:
  """Return the seqio task or mixture of a spec, registering it if needed.

  Args:
    name: see `spec.get`; also the name of a k-shot or custom task.

  Returns:
    The seqio object.

  Raises:
    ValueError: an unknown name.
  """
  entry = spec.get(name)
  importlib.import_module(entry.module)
  if isinstance(entry, spec.MixtureSpec):
    if name not in seqio.MixtureRegistry.names():
      for member in entry.rates:
        get(member)
      seqio.MixtureRegistry.add(
        name,
        [
          (member, functools.partial(_rate, entry, rate))
          for member, rate in entry.rates.items()
        ],
      )
  elif name not in seqio.TaskRegistry.names():
    if entry.kshot:
      kshot.register(entry, get(entry.kshot.base))
    elif base := of_sentinels.base_of(entry):
      sentinel_targets.register(entry, get(base))
    elif entry.benchmark == "custom":
      custom.register(entry)
    elif entry.benchmark == "templated":
      templated.register(entry, get(entry.content["base"]["name"]))
    elif entry.benchmark == "sentences":
      ppt.register(entry)
    elif entry.benchmark == "pretraining":
      corpus.register(entry)
  return seqio.get_mixture_or_task(name)


def _rate(mixture: spec.MixtureSpec, rate: float, task: seqio.Task) -> float:
  """Return a task's rate in a mixture, for seqio."""
  if mixture.temperature is None:
    return rate
  return mixture.rate_of(rate, task.num_input_examples("train"))
