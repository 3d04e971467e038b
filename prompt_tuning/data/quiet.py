"""TensorFlow without its log messages, and without the GPU.

TensorFlow only reads and writes examples here. On import, its libraries write
messages about oneDNN and CUDA to the process's standard error, which neither
Python nor its own settings can stop. If it found a GPU, it would also take the
GPU's memory.
"""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

# A line of Google's C++ log, such as `I0000 00:00:1 30 port.cc:153] oneDNN`, or
# the one before the first of them.
_NOISE = re.compile(
  rb"[IWE]\d{4} \d\d:\d\d:.*\] |WARNING: All log messages before absl::"
)
_STDERR = 2  # the file descriptor


def import_tensorflow() -> None:
  """Import TensorFlow, if it is not imported yet."""
  if "tensorflow" in sys.modules:
    return  # by somebody who may want it to use a GPU
  with without_noise():
    import tensorflow

    with contextlib.suppress(RuntimeError):  # it has its devices already
      tensorflow.config.set_visible_devices([], "GPU")


@contextlib.contextmanager
def without_noise() -> Iterator[None]:
  """Capture standard error; then write it without logs of C++ libraries."""
  try:
    real = os.dup(_STDERR)
  except OSError:  # a process without standard error has no noise
    yield
    return
  _flush()
  with tempfile.TemporaryFile() as caught:
    os.dup2(caught.fileno(), _STDERR)
    try:
      yield
    finally:
      _flush()
      os.dup2(real, _STDERR)
      os.close(real)
      caught.seek(0)
      for line in caught:
        if not _NOISE.match(line):
          os.write(_STDERR, line)


def _flush() -> None:
  if sys.stderr is not None:
    sys.stderr.flush()
