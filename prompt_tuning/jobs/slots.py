"""Slots: the rows that a bank's runs have in a delta, one per condition.

A run without conditions has one slot for all of its tasks. A mixture has one
slot for each component; all of them together serve all of its tasks.
"""

from collections.abc import Sequence
from typing import NamedTuple

from prompt_tuning.core.delta import Delta
from prompt_tuning.data import spec
from prompt_tuning.infer.runs import Runs
from prompt_tuning.tuners.method import Method


class Slot(NamedTuple):
  """One row of a delta.

  Attributes:
    run: number of its run.
    condition: its task; None for all tasks.
    component: its number in the run's mixture; None if the run is no mixture.
  """

  run: int
  condition: str | None = None
  component: int | None = None

  def name(self, run: str) -> str:
    """Name the slot.

    Args:
      run: name of its run; may be empty.
    """
    number = self.component
    component = None if number is None else f"component{number}"
    return "_".join(filter(None, (run, self.condition, component)))


def of_methods(methods: Sequence[Method], num_runs: int) -> tuple[Slot, ...]:
  """List all slots of a bank.

  Args:
    methods: of every run; none for model tuning.
    num_runs: K.

  Returns:
    The slots, in the order of the delta's rows.
  """
  if not methods:
    return tuple(map(Slot, range(num_runs)))
  return tuple(
    slot for run, method in enumerate(methods) for slot in _of_run(run, method)
  )


def _of_run(run: int, method: Method) -> list[Slot]:
  if method.components > 1:
    return [Slot(run, component=n) for n in range(method.components)]
  return [Slot(run, condition) for condition in method.conditions or (None,)]


def runs(
  delta: Delta, methods: Sequence[Method], slots: Sequence[Slot]
) -> Runs:
  """Make runs from the rows of a delta, with their placements and words.

  Args:
    delta: a row for every slot.
    methods: of every run.
    slots: of the rows.
  """
  of_slots = [methods[slot.run] for slot in slots]
  return Runs(
    delta,
    tuple(method.placement for method in of_slots),
    tuple(tuple(method.answers) for method in of_slots),
    tuple(tuple(map(tuple, method.weighed_words)) for method in of_slots),
  )


def components(slots: Sequence[Slot], run: int) -> tuple[int, ...]:
  """Find the slots of a run that is a mixture.

  Args:
    slots: of the bank.
    run: number of the run.

  Returns:
    Their numbers; empty if it is no mixture.
  """
  return tuple(
    number
    for number, slot in enumerate(slots)
    if slot.run == run and slot.component is not None
  )


def find(slots: Sequence[Slot], run: int, task: str) -> int:
  """Find the slot that a run has for a task.

  Args:
    slots: of the bank.
    run: number of the run.
    task: name of a task.

  Returns:
    Its number.

  Raises:
    ValueError: the run has slots for other tasks only.
  """
  numbered = [(n, s) for n, s in enumerate(slots) if s.run == run]
  # The first component of a mixture stands for all.
  by_condition = {s.condition: n for n, s in reversed(numbered)}
  for condition in (None, task):
    if condition in by_condition:
      return by_condition[condition]
  # Another name for the same data: WSC trains under one name and is scored
  # under another.
  dataset = spec.task(task).dataset
  alike = [
    n for c, n in by_condition.items() if c and spec.task(c).dataset == dataset
  ]
  if len(alike) == 1:
    return alike[0]
  known = ", ".join(str(slot.condition) for slot in slots if slot.run == run)
  raise ValueError(
    f"The method has a condition for each task that it trains on ({known}), "
    f"but none for {task}. Remove that task from MIXTURE_OR_TASK_NAME, or "
    "give it a rate above 0."
  )


def numbers_of(method: Method, tasks: Sequence[str]) -> tuple[int, ...] | None:
  """Find the numbers of the tasks' conditions.

  Args:
    method: method of the run.
    tasks: names of tasks.

  Returns:
    For every task the number of its condition; None without conditions.

  Raises:
    ValueError: the method has conditions, and a task has none of them.
  """
  if not method.conditions:
    return None
  alone = of_methods((method,), 1)
  return tuple(find(alone, 0, task) for task in tasks)
