"""The end of a run: which tokens count as class labels."""

import types

import pytest

from prompt_tuning.data import vocabulary as vocabularies
from prompt_tuning.jobs import conclusion
from prompt_tuning.tuners.initializers import ClassLabels
from prompt_tuning.tuners.prompt import Prompt

RTE, RECORD = "taskless_super_glue_rte_v102", "taskless_super_glue_record_v102"


@pytest.fixture
def pieces(vocabulary_file):
  """Name the label pieces of one run, per stack."""
  vocabulary = vocabularies.load(vocabulary_file)

  def found(task, stack="encoder", **settings):
    outcome = types.SimpleNamespace(
      vocabulary=vocabulary,
      runs=[types.SimpleNamespace(task=task)],
      setup=types.SimpleNamespace(tuners=[Prompt(4, 3, 2, **settings)]),
    )
    return set(vocabulary.pieces(conclusion._label_ids(outcome, 0, stack)))

  return found


def test_the_tasks_own_words_but_no_bare_space(pieces):
  expected = {"en", "tail", "ment", "\u2581not", "_"}
  assert pieces(RTE) == expected
  assert pieces(RTE, encoder_init=ClassLabels()) == expected


def test_words_that_were_given(pieces):
  given = {"encoder_init": ClassLabels(("yes", "no"))}
  assert pieces(RTE, **given) == {"\u2581yes", "\u2581no"}
  assert "tail" in pieces(RTE, "decoder", **given)


def test_the_papers_words_for_a_task_without_labels(pieces):
  assert "\u2581reading" in pieces(RECORD)
