"""The seqio task or mixture of any spec, registered when first asked for."""

import importlib

import seqio

from prompt_tuning.data import spec
from prompt_tuning.data.tasks import corpus, custom, kshot


def get(name: str) -> seqio.Task | seqio.Mixture:
  """Return the seqio task or mixture of a spec, registering it if needed.

  Args:
    name: as for `spec.get`: also a k-shot or a custom task's.

  Returns:
    The seqio object.

  Raises:
    ValueError: an unknown name.
  """
  wanted = spec.get(name)
  importlib.import_module(wanted.module)
  if isinstance(wanted, spec.MixtureSpec):
    if name not in seqio.MixtureRegistry.names():
      for member in wanted.rates:
        get(member)
      seqio.MixtureRegistry.add(name, list(wanted.rates.items()))
  elif name not in seqio.TaskRegistry.names():
    if wanted.kshot:
      kshot.register(wanted, get(wanted.kshot.base))
    elif wanted.benchmark == "custom":
      custom.register(wanted)
    elif wanted.benchmark == "pretraining":
      corpus.register(wanted)
  return seqio.get_mixture_or_task(name)
