"""The result of a training, for notebooks."""

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from prompt_tuning.checkpoints import prompts
from prompt_tuning.data import templated
from prompt_tuning.infer.runs import Runs
from prompt_tuning.jobs import export, load, same_vocabulary
from prompt_tuning.jobs.export import Origin
from prompt_tuning.models.t5.config import T5Config

if TYPE_CHECKING:
  from prompt_tuning.jobs.conclusion import Outcome


@dataclasses.dataclass(frozen=True)
class Trained:
  """Runs that were trained side by side, each at its best evaluation.

  Attributes:
    runs: name -> one run. The name of a run says how it differs, such as
      `seed0`; a single run has the name of its task.
    origins: name -> method, task, step and backbone of the run.
    scores: name -> {`<task>/<metric>`: number}; empty without evaluation.
    ranking: name -> the score that selects the best step; minus infinity
      without evaluation.
    steps: name -> the step of the run.
    reason: why training ended: `finished` or `early stopping`.
    summary: what `prompt-tuning train` prints at its end, if a folder was kept.
    config: of the model that it was trained with.
  """

  runs: Mapping[str, Runs] = dataclasses.field(repr=False)
  origins: Mapping[str, Origin] = dataclasses.field(repr=False)
  scores: Mapping[str, Mapping[str, float]]
  ranking: Mapping[str, float] = dataclasses.field(repr=False)
  steps: Mapping[str, int]
  reason: str
  summary: str = dataclasses.field(default="", repr=False)
  config: T5Config | None = dataclasses.field(default=None, repr=False)

  @property
  def prompts(self) -> Mapping[str, Runs]:
    """The runs; an older name of `runs`."""
    return self.runs

  @property
  def best(self) -> str:
    """The name of the run with the highest score, or of the first run.

    Raises:
      ValueError: the runs are of several tasks, see `best_of`.
    """
    return self.best_of()

  def best_of(self, task: str | None = None) -> str:
    """Name the best run of a task; scores of different tasks do not compare.

    Args:
      task: its name; None where all runs have the same.

    Returns:
      The name of the run with the highest score; else of the first.

    Raises:
      ValueError: several tasks of which none was named, or no run of it.
    """
    tasks = list(dict.fromkeys(o.task for o in self.origins.values()))
    if task is None and len(tasks) == 1:
      task = tasks[0]
    if task not in tasks:
      what = f"No run is of {task!r}." if task else "Which task is meant?"
      raise ValueError(
        f"{what} Name a task "
        f"({', '.join(map(str, tasks))}) or a run ({', '.join(self.runs)})."
      )
    names = [name for name in self.runs if self.origins[name].task == task]
    return max(names, key=lambda name: (self.ranking[name], self._share(name)))

  def _share(self, name: str) -> float:
    """Return the log-weight of a run in its mixture; 0 without a mixture."""
    weight = self.runs[name].delta.log_weight
    return 0.0 if weight is None else float(weight[0])

  def select(self, name: str | None) -> str:
    """Name a run by its own name, by its task, or as the only task's best.

    Args:
      name: name of a run or a task, or any name of the user's own.

    Raises:
      ValueError: it is the user's own, and the runs are of several tasks.
    """
    if name in self.runs:
      return str(name)
    several = len({origin.task for origin in self.origins.values()}) > 1
    return self.best_of(name if several else None)

  def save(self, path: str | os.PathLike[str], name: str | None = None) -> None:
    """Write one run.

    Args:
      path: `.npy` for the vectors of a prompt, as T5X's prompt-tuning writes
        them (it must not be there yet); any other name for a folder with the
        delta, which every method has, and its views for other programs.
      name: of the run, or of the task whose best it is; the best by default.

    Raises:
      CheckpointError: something is there, or it cannot be written to.
      ValueError: no name where the runs are of several tasks, or a `.npy` file
        cannot hold what was learned.
    """
    if name is None or name not in self.runs:
      name = self.best_of(name)
    runs = self.runs[name]
    if not os.fspath(path).endswith(".npy"):
      export.export(runs, 0, path, self.origins[name], self.config)
      return
    vectors = load.vectors(runs, 0)
    if not export.is_only_virtual(runs) or "encoder" not in vectors:
      raise ValueError(
        "A NumPy file holds only vectors in the encoder's input, but the "
        f"{self.origins[name].noun} has more, or none. To write a folder, "
        "give a path without .npy."
      )
    prompts.write_npy(path, vectors["encoder"])


def of(outcome: "Outcome", summary: str) -> Trained:
  """Take the best of every run out of a training.

  Args:
    outcome: how it ended; its folder must still be there.
    summary: what `conclusion.finish` said.

  Returns:
    What was trained.
  """
  from prompt_tuning.jobs import conclusion  # slow to import

  steps, trainable = conclusion.best(outcome)
  together = conclusion.runs_of(outcome, trainable)
  slots = outcome.setup.slots
  runs = [outcome.runs[slot.run] for slot in slots]
  names = [
    slot.name(run.name) or run.task
    for slot, run in zip(slots, runs, strict=True)
  ]
  records = [outcome.result.best[slot.run] for slot in slots]
  steps = [steps[slot.run] for slot in slots]
  scores = [-math.inf if one is None else one["score"] for one in records]
  model, vocabulary = outcome.model, same_vocabulary.mark(outcome.vocabulary)
  tasks = [
    slot.condition or run.task for slot, run in zip(slots, runs, strict=True)
  ]
  in_template = tuple(map(templated.has_soft, tasks))
  together = dataclasses.replace(together, in_template=in_template)
  return Trained(
    {name: together.one(k) for k, name in enumerate(names)},
    {
      name: Origin(
        outcome.setup.tuners[slot.run],
        task,
        step,
        model.fingerprint,
        model.base_model,
        vocabulary,
        {} if record is None else record["metrics"],
        is_soft,
      )
      for name, slot, task, step, record, is_soft in zip(
        names, slots, tasks, steps, records, in_template, strict=True
      )
    },
    {
      name: {} if one is None else one["metrics"]
      for name, one in zip(names, records, strict=True)
    },
    dict(zip(names, scores, strict=True)),
    dict(zip(names, steps, strict=True)),
    outcome.result.reason,
    summary,
    outcome.model.config,
  )
