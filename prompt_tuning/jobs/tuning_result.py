"""Prompts that were just trained, as a notebook holds them."""

import dataclasses
import functools
import math
import os
from collections.abc import Mapping, Sequence

import numpy as np

from prompt_tuning.checkpoints import prompts
from prompt_tuning.infer.runs import Runs
from prompt_tuning.jobs import conclusion, load
from prompt_tuning.jobs.setup import task_words
from prompt_tuning.jobs.train_job import TunerFactory
from prompt_tuning.tuners.initializers import (
  ClassLabels,
  Initializer,
  SampledVocabulary,
)
from prompt_tuning.tuners.prompt import Prompt


@dataclasses.dataclass(frozen=True)
class Trained:
  """Prompts that were trained side by side, each at its best evaluation.

  Attributes:
    prompts: name -> prompt. Runs are named by what differs, such as `seed0`; a
      single one by its task.
    scores: name -> {`<task>/<metric>`: number}; nothing where nothing was
      evaluated.
    best: name of the one with the highest score; else the first.
    steps: name -> the step it is from.
    reason: why training ended: `finished`, `early stopping` or `preempted`.
    summary: what `prompt-tuning train` prints at its end, if a folder was kept.
  """

  prompts: Mapping[str, Runs] = dataclasses.field(repr=False)
  scores: Mapping[str, Mapping[str, float]]
  best: str
  steps: Mapping[str, int]
  reason: str
  summary: str = dataclasses.field(default="", repr=False)

  def save(self, path: str | os.PathLike[str], name: str | None = None) -> None:
    """Write a prompt as a NumPy file, as T5X's prompt tuning does.

    Args:
      path: the file; must not be there yet.
      name: of the prompt; the best by default.

    Raises:
      CheckpointError: something is there, or it cannot be written to.
    """
    runs = self.prompts[self.best if name is None else name]
    prompts.write_npy(path, load.prompt_vectors(runs, 0)["encoder"])


def tuner(
  tasks: Sequence[str], length: int, initializer: Initializer | None
) -> TunerFactory:
  """Choose a prompt in front of the text, as the public demos have it.

  Args:
    tasks: names of tasks or mixtures.
    length: P.
    initializer: None for the tasks' label words, where they have some, and
      sampled vocabulary.

  Returns:
    What makes the tuning method.
  """
  if initializer is None:
    labelled = all(map(task_words, tasks))
    initializer = ClassLabels() if labelled else SampledVocabulary()
  return functools.partial(
    Prompt, encoder_length=length, encoder_init=initializer
  )


def of(outcome: conclusion.Outcome, summary: str) -> Trained:
  """Take the best prompts out of a training.

  Args:
    outcome: how it ended; its folder must still be there.
    summary: what `conclusion.finish` said.

  Returns:
    The prompts.
  """
  steps, trainable = conclusion.best(outcome)
  together = conclusion.runs_of(outcome, trainable)
  names = [run.name or run.task for run in outcome.job.runs]
  found = outcome.result.best
  scores = [-math.inf if one is None else one["score"] for one in found]
  return Trained(
    {name: together.one(k) for k, name in enumerate(names)},
    {
      name: {} if one is None else one["metrics"]
      for name, one in zip(names, found, strict=True)
    },
    names[int(np.argmax(scores))],
    dict(zip(names, steps, strict=True)),
    outcome.result.reason,
    summary,
  )
