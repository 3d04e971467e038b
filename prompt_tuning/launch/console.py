"""Messages to the user while a command runs, beside its results."""

import contextlib
import logging
import sys
from collections.abc import Iterator

_LOGGER = "prompt_tuning"  # and what is below it: all of this project


def error(said: object) -> None:
  """Print on standard error why a command ends, in the form of all commands.

  Args:
    said: an exception, or a text.
  """
  print(f"error: {said}", file=sys.stderr)


@contextlib.contextmanager
def messages(verbose: bool = False) -> Iterator[None]:
  """Show this project's messages on standard error, each once.

  Args:
    verbose: whether to show details too.

  Other libraries' messages keep Python's own settings, which show warnings.
  """
  logger = logging.getLogger(_LOGGER)
  before = logger.level, logger.propagate
  handler = _Handler()
  logger.addHandler(handler)
  # Importing a library may have given the root logger a handler as well.
  logger.propagate = False
  logger.setLevel(logging.DEBUG if verbose else logging.INFO)
  try:
    yield
  finally:
    logger.removeHandler(handler)
    logger.setLevel(before[0])
    logger.propagate = before[1]


class _Handler(logging.Handler):
  """Writes each message once, above a progress bar."""

  def __init__(self) -> None:
    super().__init__()
    self._shown: set[str] = set()

  def emit(self, record: logging.LogRecord) -> None:
    try:
      self._write(self._text(record))
    except Exception:
      self.handleError(record)

  def _text(self, record: logging.LogRecord) -> str:
    text = self.format(record)  # with the traceback, where there is one
    if record.levelno >= logging.WARNING:
      return f"{record.levelname.lower()}: {text}"
    return text

  def _write(self, text: str) -> None:
    if text in self._shown:
      return
    self._shown.add(text)
    bars = sys.modules.get("tqdm")
    if bars is None:
      print(text, file=sys.stderr, flush=True)
    else:
      bars.tqdm.write(text, file=sys.stderr)
