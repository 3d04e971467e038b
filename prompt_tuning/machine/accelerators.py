"""A warning about an accelerator that JAX does not use."""

import logging
import os
import pathlib

logger = logging.getLogger(__name__)

# The first device file of NVIDIA's driver, and of Google's.
_DEVICES = {
  "gpu": (pathlib.Path("/dev/nvidia0"), "an NVIDIA GPU"),
  "tpu": (pathlib.Path("/dev/accel0"), "a TPU"),
}
_said: set[str] = set()


def mention_unused() -> None:
  """Warn once if this machine has an accelerator that JAX does not use.

  There is no warning if JAX_PLATFORMS is set.
  """
  if os.environ.get("JAX_PLATFORMS"):
    return
  for extra, (device, name) in _DEVICES.items():
    if extra in _said or not device.exists():
      continue
    import jax

    if jax.default_backend() == "cpu":
      _said.add(extra)
      logger.warning(
        "This machine has %s, but the JAX that is installed cannot use it: "
        "computing on the CPU. pip install 'prompt-tuning[%s]' installs one "
        "that can; JAX_PLATFORMS=cpu silences this.",
        *(name, extra),
      )
