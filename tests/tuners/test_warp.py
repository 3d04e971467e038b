"""WARP's rows against the output head that they are copied from."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.core.delta import Delta
from prompt_tuning.data import custom, templated
from prompt_tuning.infer.runs import Runs
from prompt_tuning.jobs import classes, evaluate, setup
from prompt_tuning.jobs.load import Tuned
from prompt_tuning.jobs.settings import Dataset, EvaluationSettings
from prompt_tuning.jobs.train_job import Experiment
from prompt_tuning.models.scorers import OutputRows, WholeWords
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network
from prompt_tuning.train.classes import Classes
from prompt_tuning.tuners.initializers import InitializerContext
from prompt_tuning.tuners.warp import Warp
from prompt_tuning.tuners.word_rows import OutputRowsOfWords

PIECES = {"no": [5], "yes": [9], "no way": [5, 7]}
MODEL = t5_config.get(
  "t5_1_1_tiny", vocab_size=24, emb_dim=8, num_heads=2, head_dim=4, mlp_dim=12
)


@pytest.mark.parametrize("tied", [False, True])
def test_a_word_starts_at_its_pieces_own_logits(random_params, tied, tolerance):
  """The mean of several rows has the mean of their logits."""
  config = dataclasses.replace(
    MODEL,
    num_encoder_layers=1,
    num_decoder_layers=1,
    logits_via_embedding=tied,
  )
  params = random_params(config)
  context = InitializerContext(
    tokenize=PIECES.get,
    label_words=tuple(PIECES),
    output_rows=functools.partial(network.output_rows, config, params),
  )
  rows = OutputRowsOfWords()(None, (3, 8), jnp.float32, context)
  batch = {
    "encoder_input_tokens": jnp.array([[3, 4, 1]]),
    "decoder_input_tokens": jnp.array([[0, 6]]),
    "decoder_target_tokens": jnp.array([[6, 1]]),
  }
  logits = np.asarray(
    jax.jit(network.T5(config).apply)(
      {"params": params}, batch, Delta(head_rows=rows[None])
    )
  )[0]
  of_pieces = [logits[:, ids].mean(-1) for ids in PIECES.values()]
  np.testing.assert_allclose(
    logits[:, 24:], np.stack(of_pieces, -1), **tolerance["same"]
  )


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (
      {"before": 0, "after": 0},
      r"WARP_BEFORE \+ WARP_AFTER must be a positive",
    ),
    ({"before": -1, "after": 6}, "WARP_BEFORE must be a whole number >= 0"),
    ({"before": 5, "after": 1.0}, "WARP_AFTER must be a whole number >= 0"),
    ({"label_words": "words.txt"}, "must list one word per class"),
    ({"label_words": {"a": "b"}}, "must list one word per class"),
  ],
)
def test_malformed_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    Warp(emb_dim=8, **settings)


@pytest.mark.parametrize("label_words", [None, ("one",)])
def test_without_classes_there_is_nothing_to_learn(label_words):
  with pytest.raises(ValueError, match="LABEL_WORDS"):
    Warp(emb_dim=8, label_words=label_words).init(jax.random.key(0), None)


def test_rows_need_the_head():
  with pytest.raises(ValueError, match="output head"):
    OutputRowsOfWords()(None, (3, 8), jnp.float32, InitializerContext())


def test_a_letter_that_follows_no_blank_is_its_own_piece():
  """`<extra_id_0>A`, as templates write the word `<!>A`."""
  pieces = {"A": [3], "<extra_id_0>": [9], "<extra_id_0>A": [9, 5]}
  words = {"<extra_id_0>A": 5, "<!>A": 5, "<extra_id_0> A": 3, "A": 3}
  context = InitializerContext(
    tokenize=pieces.__getitem__,
    label_words=tuple(words),
    output_rows=lambda ids: jnp.repeat(
      jnp.array(ids, jnp.float32)[:, None], 2, 1
    ),
  )
  rows = OutputRowsOfWords()(None, (4, 2), jnp.float32, context)
  np.testing.assert_array_equal(rows[:, 0], [*words.values()])
  assert Warp(emb_dim=2, label_words=tuple(words)).answers == ("A",) * 4


@pytest.fixture
def no_yes(own_tasks, tmp_path, vocabulary_file):
  """Name a task whose classes are no and yes."""
  path = tmp_path / "rows.jsonl"
  path.write_text(json.dumps({"text": "sea", "kind": 0}))
  task = custom.declare(
    "no_yes",
    {"train": str(path), "validation": str(path)},
    template="{text}",
    target_column="kind",
    label_words=("no", "yes"),
  )
  return task.name


SWAPPED = (
  r"no_yes has 2 classes, no, yes, .*the row for 'yes' would score.*'no'"
)
OTHERS = "2 output rows, for nay, aye. If these are rows of the same classes"


@pytest.mark.parametrize(
  ("answers", "given", "message"),
  [
    (("no", "yes"), None, ""),
    (("yes", "no"), None, SWAPPED),
    (("no", "yes", "maybe"), None, "2 classes, no, yes, but the run has 3 out"),
    (("nay", "aye"), None, OTHERS),
    (("nay", "aye"), ("nay", "aye"), ""),
    (("nay", "aye"), {"yes": ["aye", "sure"], "no": ["nay"]}, ""),
    (("aye", "nay"), ("nay", "aye"), "the row for 'aye' would score"),
    (("no", "yes"), ("nay", "aye"), ""),  # rows by the names of the classes
    (("yes", "no"), ("yes", "no"), ""),  # as the user trained them
    ((), None, ""),
  ],
)
def test_rows_are_scored_as_those_of_their_own_classes(
  no_yes, answers, given, message
):
  runs = Runs(answers=(answers,))
  settings = EvaluationSettings(
    Dataset(no_yes),
    by="rank",
    scorer=OutputRows(),
    label_words=given,
  )
  classes.insist_on_answers(no_yes, given, WholeWords(), answers)
  if not message:
    classes.insist_on_answers(no_yes, given, OutputRows(), answers)
    return
  with pytest.raises(ValueError, match=message):
    evaluate._jobs(settings, Tuned(runs, ("",)), None)


@pytest.mark.parametrize("format", ["sentinel", "plain"])
def test_rows_of_a_template_go_by_its_words_or_its_targets(no_yes, format):
  masks = '{"mask"}' if format == "plain" else '{"mask"} {"mask"}'
  words = {"label_words": {"no": ["nay", "never"], "yes": ["aye"]}}
  if format == "sentinel":
    words = {"rules": {"no": ["nay", "it"], "yes": ["aye", "it"]}}
  task = templated.declare(
    f"by_template_{format}",
    no_yes,
    template='{"field": "text"} ' + masks,
    target_format=format,
    **words,
  )
  right = Warp(emb_dim=8, label_words=task.label_words).answers
  classes.insist_on_answers(task.name, None, OutputRows(), right)
  with pytest.raises(ValueError, match="would score the class 'nay"):
    classes.insist_on_answers(task.name, None, OutputRows(), right[::-1])


@pytest.mark.parametrize(
  ("own", "given", "message"),
  [
    (None, None, ""),
    (("yes", "no"), None, SWAPPED),
    (("no", "yes", "maybe"), None, "2 classes, no, yes, but the run has 3 out"),
    (("nay", "aye"), None, ""),  # starts from other words
    (("yes", "no"), ("yes", "no"), ""),
  ],
)
def test_rows_train_as_those_of_their_own_classes(
  no_yes, vocabulary_file, own, given, message
):
  experiment = Experiment(
    t5_config.get("t5_1_1_tiny"),
    Dataset(no_yes, vocabulary_file=vocabulary_file),
    functools.partial(Warp, label_words=own),
    objective=Classes(OutputRows(), given) if given else None,
    learning_rates=(0.1,),
  )
  if not message:
    assert setup.objective_of(experiment)
    return
  with pytest.raises(ValueError, match=message):
    setup.objective_of(experiment)
