"""This project's tasks inside T5X: to import this module registers them."""

import importlib
from typing import Any

from prompt_tuning.data import spec, vocabulary
from prompt_tuning.data.tasks import registration

for _module in sorted({spec.get(name).module for name in spec.names()}):
  importlib.import_module(_module)


def use_vocabulary(path: str | None = None) -> Any:
  """Set the vocabulary of the tasks, and give it to T5X's model.

  Args:
    path: T5's `sentencepiece.model`; None for the environment variable's.

  Returns:
    seqio's vocabulary. T5X checks that model and task have the same.

  Raises:
    ValueError: nobody names a file, or it is not T5's.
    FileNotFoundError: there is none.
  """
  vocabulary.configure(path)
  vocabulary.load()
  return registration.VOCABULARY
