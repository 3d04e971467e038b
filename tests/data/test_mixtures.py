"""Mixtures of one's own: rates, by number of examples or not."""

import collections
import math

import numpy as np
import pytest

from prompt_tuning.data import mixtures, order, spec

pytestmark = pytest.mark.usefixtures("own_tasks")

SKILLS = ("skill_first", "skill_last")
SIZES = (10, 100, 1000)


@pytest.mark.parametrize(
  ("temperature", "limit", "expected"),
  [
    (None, None, (1, 1, 1)),
    (1.0, None, SIZES),
    (1.0, 50, (10, 50, 50)),
    (2.0, None, tuple(math.sqrt(n) for n in SIZES)),
    (math.inf, None, (1, 1, 1)),
  ],
)
def test_rates_by_number_of_examples(temperature, limit, expected):
  mixture = spec.MixtureSpec("m", {}, "", temperature, limit)
  rates = [mixture.rate_of(1.0, n) for n in SIZES]
  assert rates == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [1.0, 10.0, math.inf])
def test_examples_are_read_at_the_rates(temperature):
  """Of 10,000 reads, every task has its share to 0.2 %, as grain mixes."""
  mixture = spec.MixtureSpec("m", {}, "", temperature)
  rates = [mixture.rate_of(1.0, n) for n in SIZES]
  read = order.Order(SIZES, rates, seed=0).read(0, 10_000)
  owners = np.searchsorted(np.cumsum(SIZES), read, side="right")
  counts = collections.Counter(owners.tolist())
  for task, rate in enumerate(rates):
    assert abs(counts[task] - 10_000 * rate / sum(rates)) <= 20


def test_a_declared_mixture_has_the_tasks_of_its_members():
  mixture = mixtures.declare("two_of_these", SKILLS, temperature=2.0, limit=9)
  assert spec.get("two_of_these") is mixture
  names = [(task.name, rate) for task, rate in mixture.components("train")]
  assert names == [(name, 1.0) for name in SKILLS]
  again = mixtures.declare("two_of_these", SKILLS, temperature=2.0, limit=9)
  assert again == mixture
  with pytest.raises(ValueError, match="different task or mixture named"):
    mixtures.declare("two_of_these", SKILLS)


def test_seqio_mixes_at_the_same_rates():
  from prompt_tuning.data.tasks import registry

  mixtures.declare("for_seqio", {"skill_first": 1, "skill_last": 3})
  mixture = registry.get("for_seqio")
  rates = [mixture.get_rate(task) for task in mixture.tasks]
  assert rates == [1, 3]


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"tasks": "skill_first"}, "must list tasks; got 'skill_first'"),
    ({"tasks": ()}, "must list tasks"),
    ({"tasks": ("skill_first",) * 2}, "names a task twice: skill_first"),
    ({"tasks": ("skill_firts",)}, "Did you mean 'skill_first'"),
    ({"tasks": {"skill_first": -1}}, "rate of skill_first is -1"),
    ({"tasks": {"skill_first": "1"}}, "rate of skill_first is '1'"),
    ({"temperature": 0}, "temperature must be positive; got 0"),
    ({"limit": 5}, "expected a positive number, together with"),
    ({"temperature": 1.0, "limit": 0}, "limit is 0; expected a positive"),
  ],
)
def test_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    mixtures.declare("refused", **{"tasks": SKILLS} | settings)
