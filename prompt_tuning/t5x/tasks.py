"""This project's tasks inside T5X; importing this module registers them."""

import importlib
from typing import Any

import seqio

from prompt_tuning.data import spec, vocabulary
from prompt_tuning.data.tasks import registration, registry

for _module in sorted({spec.get(name).module for name in spec.names()}):
  importlib.import_module(_module)


def use_vocabulary(
  path: str | None = None, task: str | None = None, module: str | None = None
) -> Any:
  """Set the vocabulary of the tasks, and give it to T5X's model.

  T5X builds its model before it looks for the task. So this function registers
  a task that seqio does not know yet, such as a k-shot task, which exists for
  every number, or a task that `module` declares on its own files.

  Args:
    path: T5's `sentencepiece.model`; None for the environment variable's.
    task: the task or mixture that T5X will ask seqio for; None registers none.
    module: module to import first, which may declare the task. T5X imports it
      too, but only after it has built the model.

  Returns:
    seqio's vocabulary. T5X checks that model and task have the same.

  Raises:
    ValueError: no file is named, it is not T5's, or neither seqio nor this
      project knows the task.
    FileNotFoundError: the file does not exist.
  """
  vocabulary.configure(path)
  vocabulary.load()
  if module:
    importlib.import_module(module)
  known = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
  if task is not None and task not in known:
    registry.get(task)
  return registration.VOCABULARY
