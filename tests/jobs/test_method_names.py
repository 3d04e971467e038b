"""Methods of one bank are named by what differs among them."""

import pytest

from prompt_tuning.jobs.method_names import labels
from prompt_tuning.tuners.ia3 import IA3
from prompt_tuning.tuners.initializers import (
  ClassLabels,
  SampledVocabulary,
  Uniform,
)
from prompt_tuning.tuners.prompt import Prompt


def prompt(init=None, **settings):
  if init is not None:
    settings["encoder_init"] = init
  return Prompt(4, 3, **settings)


@pytest.mark.parametrize(
  ("methods", "names"),
  [
    ([prompt(), IA3()], ["Prompt", "IA3"]),
    (
      [prompt(Uniform()), prompt(SampledVocabulary()), prompt(ClassLabels())],
      ["Uniform", "SampledVocabulary", "ClassLabels"],
    ),
    (
      [prompt(SampledVocabulary(n)) for n in (100, None)],
      ["population100", "populationNone"],
    ),
    (
      [prompt(Uniform(-b, b)) for b in (0.5, 1.0)],
      ["low-0.5_high0.5", "low-1.0_high1.0"],
    ),
    (
      [
        prompt(Uniform()),
        prompt(SampledVocabulary(5)),
        prompt(SampledVocabulary(9)),
      ],
      ["Uniform", *(f"SampledVocabulary_population{n}" for n in (5, 9))],
    ),
    (
      [prompt(ClassLabels(words)) for words in (("a b", "c/d"), ("e",))],
      ["a_b_c_d", "e"],
    ),
    (
      [prompt(encoder_position=place) for place in ("before", "after")],
      ["before", "after"],
    ),
    # What cannot name a folder, or tells nothing apart.
    ([prompt(ClassLabels((w,))) for w in ("/", "..")], ["tuner0", "tuner1"]),
    ([prompt(ClassLabels((w,))) for w in ("a", "A")], ["tuner0", "tuner1"]),
    (
      [prompt(ClassLabels((w * 41,))) for w in ("a", "b")],
      ["tuner0", "tuner1"],
    ),
    ([prompt(), prompt()], ["tuner0", "tuner1"]),
  ],
)
def test_names(methods, names):
  assert labels(methods) == names
