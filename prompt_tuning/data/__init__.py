"""Tasks, metrics, and the tokenised pipeline; the only user of TensorFlow."""

import sys

# Fills the registry of `spec`, which cannot import the modules that import it.
from prompt_tuning.data import catalog as catalog
from prompt_tuning.data import sentinel_targets, spec


def _adopt(name: str) -> bool:
  """Look the name up in seqio's registry, if a user's module imported seqio."""
  if "seqio" not in sys.modules:
    return False
  from prompt_tuning.data import adopted

  return adopted.adopt(name)


spec.on_unknown(sentinel_targets.adopt)
spec.on_unknown(_adopt)
