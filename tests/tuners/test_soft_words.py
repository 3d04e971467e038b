"""Soft words against the hard prompt, and what a mixture is good for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.core.delta import Delta
from prompt_tuning.core.placement import Placement
from prompt_tuning.core.shape import ModelShape
from prompt_tuning.infer.evaluate import Job, _mixed
from prompt_tuning.infer.rank import Ranking
from prompt_tuning.jobs import slots
from prompt_tuning.tuners import bank
from prompt_tuning.tuners.initializers import InitializerContext, Text
from prompt_tuning.tuners.soft_words import EM, GRADIENT, SoftWords

SHAPE = ModelShape(emb_dim=4, num_encoder_layers=3)
TABLE = np.arange(40, dtype=np.float32).reshape(10, 4)
CONTEXT = InitializerContext(TABLE, tokenize=lambda text: [len(text), 3])


def made(**settings):
  method = SoftWords(shape=SHAPE, length=2, mixture=2, **settings)
  banked = bank.init_bank([method], [jax.random.key(0)], [CONTEXT])
  return method, banked.params, bank.apply_bank(method, banked.params)


@pytest.mark.parametrize("weighting", [EM, GRADIENT])
def test_it_begins_with_words_and_no_offsets(weighting):
  inits = (Text("two"), Text("four"))
  method, _, delta = made(prompt_init=inits, weighting=weighting)
  np.testing.assert_array_equal(delta.virtual, [TABLE[[3, 3]], TABLE[[4, 3]]])
  hidden = delta.hidden["encoder"]
  assert not hidden.values.any()
  assert not hidden.replace.any()
  np.testing.assert_array_equal(np.exp(delta.log_weight), [0.5, 0.5])
  assert method.placement == Placement(encoder_prefix=(0, 1))


def test_every_prompt_has_its_own_layers():
  method, params, _ = made()
  prompts = jnp.arange(2 * 3 * 2 * 4, dtype=jnp.float32).reshape(1, 2, 3, 2, 4)
  delta = bank.apply_bank(method, {**params, "prompts": prompts})
  np.testing.assert_array_equal(delta.virtual, prompts[0, :, 0])
  values = np.asarray(delta.hidden["encoder"].values)
  np.testing.assert_array_equal(values[:, 1:], prompts[0, :, 1:])
  assert not values[:, 0].any()


def test_two_complementary_prompts_are_better_together():
  """Each is right where it is sure, and wrong by little where it is not."""
  method, _, delta = made()
  sure, unsure = np.log([0.98, 0.02]), np.log([0.45, 0.55])
  first = [Ranking(0, tuple(sure)), Ranking(1, tuple(unsure))] * 2
  second = [Ranking(1, tuple(unsure)), Ranking(0, tuple(sure))] * 2
  job = Job(None, 0, slots.components(slots.of_methods([method], 1), 0))
  mixed = _mixed([first, second], job, delta)
  right = [np.mean([r.best == 0 for r in rows]) for rows in (first, second)]
  assert right == [0.5, 0.5]
  assert [ranking.best for ranking in mixed] == [0] * 4
  np.testing.assert_allclose(
    np.exp(mixed[0].scores), [(0.98 + 0.45) / 2, (0.02 + 0.55) / 2]
  )


def test_the_heaviest_prompt_generates():
  job = Job(None, 4, (4, 5, 6))
  delta = Delta(log_weight=jnp.log(jnp.array([1, 1, 1, 1, 0.2, 0.5, 0.3])))
  assert job.heaviest(delta).run == 5
  assert Job(None, 3).heaviest(delta).run == 3
  assert [part.run for part in job.parts] == [4, 5, 6]


def test_components_have_names_and_stand_together():
  method, _, _ = made()
  both = slots.of_methods([method, method], 2)
  assert [slot.name("seed0") for slot in both[:2]] == [
    "seed0_component0",
    "seed0_component1",
  ]
  assert slots.components(both, 1) == (2, 3)
  assert slots.find(both, 1, "skill_first") == 2
  assert slots.components(slots.of_methods([], 1), 0) == ()


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"mixture": 1}, "expected at least 2 prompts"),
    ({"weighting": "mean"}, "SOFT_WORDS_WEIGHTING"),
    ({"length": 0}, "SOFT_WORDS_LENGTH"),
    ({"prompt_init": (Text("two"),)}, "1 initialisers for 3 prompts"),
  ],
)
def test_malformed_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    SoftWords(shape=SHAPE, **settings)
