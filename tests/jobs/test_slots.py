"""Slots: which row of a delta a run uses for a task."""

import types

import pytest

from prompt_tuning.jobs import slots
from prompt_tuning.jobs.slots import Slot

PLAIN = types.SimpleNamespace(components=1, conditions=())
SKILLS = ("skill_first", "skill_last")
SPLIT = types.SimpleNamespace(components=1, conditions=SKILLS)


def test_a_run_has_a_slot_or_one_for_each_condition():
  assert slots.of_methods((), 2) == (Slot(0), Slot(1))
  assert slots.of_methods((PLAIN, SPLIT, PLAIN), 3) == (
    Slot(0),
    *(Slot(1, name) for name in SKILLS),
    Slot(2),
  )


def test_slots_are_named_by_run_and_condition():
  assert Slot(0).name("seed0") == "seed0"
  assert Slot(0, "skill_last").name("seed0") == "seed0_skill_last"
  assert Slot(0, "skill_last").name("") == "skill_last"


def test_a_task_finds_its_slot():
  bank = slots.of_methods((PLAIN, SPLIT), 2)
  assert slots.find(bank, 0, "skill_largest") == 0
  assert slots.find(bank, 1, "skill_first") == 1
  assert slots.find(bank, 1, "skill_last") == 2
  with pytest.raises(ValueError, match=r"none for skill_largest.*a rate above"):
    slots.find(bank, 1, "skill_largest")


def test_data_that_are_scored_under_another_name_find_theirs():
  wsc = "taskless_super_glue_wsc_v102_simple_"
  method = types.SimpleNamespace(
    components=1, conditions=("taskless_super_glue_rte_v102", f"{wsc}train")
  )
  bank = slots.of_methods((method,), 1)
  assert slots.find(bank, 0, f"{wsc}eval") == 1


def test_tasks_have_the_numbers_of_their_conditions():
  assert slots.numbers_of(PLAIN, SKILLS) is None
  assert slots.numbers_of(SPLIT, SKILLS[::-1]) == (1, 0)
  with pytest.raises(ValueError, match="none for skill_largest"):
    slots.numbers_of(SPLIT, ("skill_largest",))
