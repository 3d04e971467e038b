"""The notebook's view: load, train, predict, score, vote; without gin."""

import dataclasses
import io
import json
import signal
import subprocess
import sys
import tempfile
import textwrap

import gin
import jax
import numpy as np
import pytest
import sentencepiece

import prompt_tuning as pt
from prompt_tuning import api
from prompt_tuning.checkpoints import (
  bundle,
  fingerprint,
  peft,
  prompts,
  restore,
  t5x_writer,
)
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.core import tree
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.placement import Placement
from prompt_tuning.data import custom, postprocessors, spec, vocabulary
from prompt_tuning.data.metrics import classification
from prompt_tuning.infer.ensemble import vote
from prompt_tuning.infer.runs import Runs, join
from prompt_tuning.jobs import conclusion, identity, load, train
from prompt_tuning.launch import main
from prompt_tuning.models.t5.config import T5Config
from prompt_tuning.train.errors import StoppedError
from prompt_tuning.tuners import bank
from prompt_tuning.tuners.initializers import InitializerContext, Uniform
from prompt_tuning.tuners.prompt import Prompt

CONFIG = T5Config(
  vocab_size=192,
  emb_dim=8,
  num_heads=2,
  head_dim=4,
  mlp_dim=16,
  num_encoder_layers=1,
  num_decoder_layers=1,
)
SENTENCES = [
  f"{who} {what} {where}"
  for who in ("the cat", "a dog", "my bird", "no fox")
  for what in ("sings", "sleeps", "runs away", "waits")
  for where in ("at home", "in the garden", "by the river")
]
IN_TEMPLATE = "were trained at the places of a task's template"
TEXTS = ["the cat sings", "a dog sleeps in the garden", "", "my bird waits"]


@pytest.fixture(scope="module")
def files(tmp_path_factory, random_params):
  """A checkpoint, a vocabulary, and prompts of three kinds and lengths."""
  folder = tmp_path_factory.mktemp("model")
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(SENTENCES),
    model_writer=model,
    vocab_size=80,
    hard_vocab_limit=False,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    minloglevel=2,
  )
  (folder / "sentencepiece.model").write_bytes(model.getvalue())
  leaves = restore.leaves_of(random_params(CONFIG))
  t5x_writer.write_t5x(folder / "checkpoint_7", leaves, step=7)
  prompts.write_npy(folder / "two.npy", vectors(2))
  peft.write_vectors(folder / "five", vectors(5))
  inside = restore.leaves_of(
    {"encoder": {"prompt": {"prompt": {"prompt": vectors(3)}}}}
  )
  t5x_writer.write_t5x(folder / "checkpoint_9", {**leaves, **inside}, step=9)
  return folder


def vectors(length):
  rng = np.random.default_rng(length)
  return 3 * rng.normal(size=(length, CONFIG.emb_dim)).astype(np.float32)


@pytest.fixture(scope="module")
def plain(files):
  return api.load_model(
    files / "checkpoint_7", str(files / "sentencepiece.model"), batch_size=4
  )


@pytest.fixture(scope="module")
def model(plain, files):
  return plain.with_prompts(
    {
      "two": files / "two.npy",
      "five": str(files / "five"),
      "three": vectors(3),
      "none": None,
    }
  )


def test_five_lines(files, plain):
  """As in the module's docstring."""
  model = api.load_model(
    files / "checkpoint_7", str(files / "sentencepiece.model")
  )
  model = model.with_prompts({"two": files / "two.npy", "five": files / "five"})
  (said,) = model.predict(TEXTS[:1], prompt="two")
  (score,) = model.score(TEXTS[:1], ["sings"], prompt="five")
  assert isinstance(said, str)
  assert score < 0
  # As the checkpoint says, and as one CPU wants it.
  assert model.predictor.config == dataclasses.replace(
    CONFIG, relpos_max_distance=128, attention_bytes=8 << 20
  )
  assert plain.predict(TEXTS[:1]) != model.predict(TEXTS[:1], prompt="two")


def test_a_batch_mixes_prompts(model, plain, files, tolerance):
  names = ["five", "none", "two", "three"]
  scores = model.score(TEXTS, SENTENCES[:4], prompt=names)
  said = model.predict(TEXTS, prompt=names)
  alone = {
    "two": plain.with_prompts({"p": files / "two.npy"}),
    "five": plain.with_prompts({"p": files / "five"}),
    "three": plain.with_prompts({"p": vectors(3)}),
    "none": plain,
  }
  for i, name in enumerate(names):
    (score,) = alone[name].score([TEXTS[i]], [SENTENCES[i]])
    np.testing.assert_allclose(scores[i], score, **tolerance["same"])
    assert alone[name].predict([TEXTS[i]]) == [said[i]]


def test_rank_agrees_with_score(model, tolerance):
  labels = ["sings", "sleeps in the garden"]
  rankings = model.rank(TEXTS, labels, prompt="two")
  for number, label in enumerate(labels):
    scores = model.score(TEXTS, [label] * 4, prompt="two")
    np.testing.assert_allclose(
      [ranking.scores[number] for ranking in rankings],
      scores,
      **tolerance["same"],
    )


def test_votes_of_all_prompts_or_some(model):
  labels = ["sings", "sleeps", "waits"]
  members = ["five", "two", "three"]
  for outcome, *answers in zip(
    model.vote(TEXTS, members, labels),
    *(model.rank(TEXTS, labels, prompt=name) for name in members),
    strict=True,
  ):
    chosen = [labels[ranking.best] for ranking in answers]
    assert outcome.answer == vote(chosen, outcome.scores).answer
    assert list(outcome.answers) == chosen
  assert len(model.vote(TEXTS[:1], length=3)[0].answers) == 4


def test_what_prompts_are_near_to(plain, tmp_path, tolerance):
  """Words of the vocabulary, and each other; of prompts side by side, too."""
  table = np.asarray(plain.backbone.params["token_embedder"]["embedding"])
  words = {"sings": 20, "waits": 21}
  of_words = {name: table[[k, k + 2]] for name, k in words.items()}
  model = plain.with_prompts({**of_words, "longer": vectors(3), "none": None})
  reading = model.nearest_words("waits")
  vocabulary = plain.predictor.vocabulary
  assert [near[0] for near in reading.words] == vocabulary.pieces([21, 23])
  assert f"{reading.words[1][0]} (1.00)" in str(reading)
  for name, message in (("none", "no vectors before"), (None, "Unknown")):
    with pytest.raises(ValueError, match=message):
      model.nearest_words(name)
  with pytest.raises(ValueError, match="none has no vectors before"):
    model.similarity()
  both = plain.with_prompts({**of_words, "same": table[[21, 23]]})
  found = both.similarity(folder=tmp_path)
  (nearest, cosine), _ = found.sources("same")
  assert nearest == "waits"
  np.testing.assert_allclose(cosine, 1, **tolerance["oracle"])
  assert (tmp_path / "similarity.png").is_file()


def test_nobody_votes_and_examples_lack_fields(plain, monkeypatch):
  with pytest.raises(ValueError, match="There is no prompt to vote; expected"):
    plain.vote(TEXTS, candidates=["a", "b"])
  monkeypatch.setattr(spec, "_specs", {})
  how = {"postprocess": postprocessors.qa, "splits": {}}
  spec.add(spec.TaskSpec("bare", "b", "d", "module", "source", **how))
  for example, field in (
    ({"inputs": "a", "targets_pretokenized": "b"}, spec.INPUTS),
    ({spec.INPUTS: "a", "targets": "b"}, spec.TARGETS),
    ({spec.INPUTS: "a", spec.TARGETS: "b"}, "answers"),
  ):
    with pytest.raises(ValueError, match=f"xample 0 has no field '{field}'"):
      plain.evaluate("bare", [example])


def test_evaluate(model, monkeypatch):
  words = ("sings", "sleeps")
  task = spec.TaskSpec(
    name="invented",
    benchmark="custom",
    dataset="invented",
    module="",
    source="file",
    splits={"validation": "validation"},
    label_words=words,
    postprocess=postprocessors.LabelId(words),
    metrics=(classification.accuracy,),
  )
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))
  spec.add(task)
  examples = [
    {"inputs_pretokenized": text, "targets_pretokenized": words[i % 2]}
    for i, text in enumerate(TEXTS)
  ]
  metrics = model.evaluate("invented", examples, "two", by=["rank"])
  best = [ranking.best for ranking in model.rank(TEXTS, words, "two")]
  correct = sum(number == i % 2 for i, number in enumerate(best))
  assert metrics == {"accuracy": 25.0 * correct}
  weights = Delta(word_weights=np.zeros((1, 2, 1), np.float32))
  of_others = Runs(weights, (Placement(),), weighed_words=((("a",), ("b",)),))
  with pytest.raises(
    ValueError, match="sings, but the run has weights for 1 oth"
  ):
    model.with_tuned({"weighed": of_others}).evaluate(
      "invented", examples, by="rank", scorer=pt.scorers.WholeWords("learned")
    )
  for answers in (words[::-1], words[:1]):
    shape = (1, len(answers), CONFIG.emb_dim)
    rows = Delta(head_rows=np.zeros(shape, np.float32))
    of_others = Runs(rows, (Placement(),), answers=(answers,))
    with pytest.raises(ValueError, match=r"2 classes, .* rows, for s"):
      model.with_tuned({"rows": of_others}).evaluate(
        "invented", examples, by="rank", scorer=pt.scorers.OutputRows()
      )


def test_a_prompt_inside_a_checkpoint(files, plain, model, tolerance, caplog):
  """T5X saves model and prompt together; each is found."""
  both = api.load_model(
    files / "checkpoint_9", str(files / "sentencepiece.model")
  )
  assert "with_prompts" in caplog.text
  whole = both.with_prompts({"p": files / "checkpoint_9"})
  np.testing.assert_allclose(
    whole.score(TEXTS[:1], ["waits"]),
    model.score(TEXTS[:1], ["waits"], prompt="three"),
    **tolerance["same"],
  )


def test_prompts_of_any_kind_and_place(plain, model, tolerance, caplog):
  """Runs built elsewhere: the same vectors, behind the text."""
  vector_runs = api.from_vectors(vectors(3))
  runs = dataclasses.replace(vector_runs, in_template=(True,))
  after = Runs(runs.delta, (Placement(encoder_suffix=(0, 1, 2)),))
  both = plain.with_prompts({"before": runs, "after": after})
  found = both.score(TEXTS[:2], ["waits"] * 2, prompt=["before", "after"])
  assert caplog.text.count(IN_TEMPLATE) == 1
  expected = model.score(TEXTS[:2], ["waits"] * 2, prompt="three")
  np.testing.assert_allclose(found[0], expected[0], **tolerance["same"])
  assert abs(found[1] - expected[1]) > 1e-4


def saved_run(params, *tuners):
  """Prompts as `train` saves them: placements and fingerprint beside them."""
  context = InitializerContext(np.ones((4, CONFIG.emb_dim), np.float32))
  keys = [jax.random.key(seed) for seed in range(len(tuners))]
  made = bank.init_bank(tuners, keys, [context] * len(tuners))
  described = {
    "runs": [{"name": f"run {k}"} for k in range(len(tuners))],
    "tuners": [identity.describe_method(t) for t in tuners],
    "placements": identity.describe([tuner.placement for tuner in tuners]),
    "backbone": {"fingerprint": fingerprint.fingerprint(params)},
    "start_step": 0,
  }
  trainable = bundle.to_host(tree.flatten({"tuner": made.params}))
  return bundle.Bundle({"run": described, "step": 5}, trainable)


def prompt(**settings):
  return Prompt(
    CONFIG.emb_dim,
    3,
    2,
    "after",
    encoder_init=Uniform(),
    decoder_init=Uniform(),
    **settings,
  )


def test_bundles_say_where_their_tokens_stand(plain, tmp_path):
  """Read as the commands read them; also the best of a MODEL_DIR."""
  saved = saved_run(plain.predictor.params, prompt())
  bundle.write(tmp_path / "alone", saved)
  best = bundle.step_path(tmp_path / "run" / "best" / "run_0", 5)
  manifest = {**saved.manifest, "run_index": 0}
  bundle.write(best, bundle.Bundle(manifest, saved.trainable))

  expected = load.load(tmp_path / "alone").runs
  for path in (tmp_path / "alone", tmp_path / "run", best):
    runs = api.load_prompt(path)
    assert runs.placements == expected.placements
    assert runs.placements[0].encoder_suffix == (0, 1, 2)
    np.testing.assert_array_equal(runs.delta.virtual, expected.delta.virtual)
  model = plain.with_prompts({"p": tmp_path / "run"})
  assert len(model.predict(TEXTS[:1])) == 1


def test_bundles_that_do_not_fit(plain, tmp_path):
  params = plain.predictor.params
  bundle.write(tmp_path / "two", saved_run(params, prompt(), prompt()))
  other = jax.tree.map(lambda a: a + 1, params)
  bundle.write(tmp_path / "other", saved_run(other, prompt()))
  with pytest.raises(ValueError, match="tuned with the backbone"):
    plain.with_prompts({"p": tmp_path / "other"})
  np.save(tmp_path / "wide.npy", np.zeros((2, 5), np.float32))
  with pytest.raises(
    ValueError, match=r"(?s)does not fit.*any, 8\], got \[1, 2, 5\]"
  ):
    plain.with_prompts({"p": tmp_path / "wide.npy"})
  several = saved_run(params, prompt(), prompt())
  for k in (0, 1):
    best = bundle.step_path(tmp_path / "several" / "best" / f"run_{k}", 5)
    manifest = {**several.manifest, "run_index": k}
    own = {path: a[k : k + 1] for path, a in several.trainable.items()}
    bundle.write(best, bundle.Bundle(manifest, own))
  for path in ("two", "several"):
    with pytest.raises(ValueError, match=r"holds 2 runs \(run 0, run 1\)"):
      api.load_prompt(tmp_path / path)


def test_half_precision(files, tolerance):
  half = api.load_model(
    files / "checkpoint_7",
    str(files / "sentencepiece.model"),
    dtype="bfloat16",
  )
  full = api.load_model(
    files / "checkpoint_7", str(files / "sentencepiece.model")
  )
  (low,) = half.score(TEXTS[:1], ["waits"])
  (high,) = full.score(TEXTS[:1], ["waits"])
  assert low != high
  assert low == pytest.approx(high, rel=tolerance["bfloat16"]["rtol"])


def test_mistakes(plain, model, files):
  with pytest.raises(ValueError, match="Did you mean 'three'"):
    model.predict(TEXTS, prompt="thre")
  with pytest.raises(ValueError, match="has: two, five, three, none"):
    model.predict(TEXTS)  # which of the four?
  with pytest.raises(ValueError, match="has: none"):
    plain.predict(TEXTS, prompt="two")
  with pytest.raises(ValueError, match="list of texts; got the text 'a'"):
    model.predict("a", prompt="two")
  with pytest.raises(ValueError, match="a list of names; got 7"):
    model.predict(TEXTS, 7)
  with pytest.raises(ValueError, match="4 inputs and 2 runs"):
    model.predict(TEXTS, prompt=["two", "five"])
  two = join([api.from_vectors(vectors(2)), api.from_vectors(vectors(3))])
  with pytest.raises(ValueError, match="'p' names 2 runs"):
    plain.with_prompts({"p": two})
  with pytest.raises(ValueError, match="Expected names and what was tuned"):
    plain.with_prompts({})
  with pytest.raises(ValueError, match="Expected names and what was tuned"):
    plain.with_prompts(["two.npy"])
  with pytest.raises(ValueError, match="'p' is a list; expected a path, an"):
    plain.with_prompts({"p": [[1.0] * 8]})
  with pytest.raises(
    ValueError, match=r"A vote names a prompt twice; .*: two, two"
  ):
    model.vote(TEXTS, ["two", "two"])
  for text in (None, b"a", 3, "\ud800"):
    with pytest.raises(ValueError, match=r"Text number 1 is .*; expected"):
      plain.predict(["a", text])
  for settings, message in (
    ({"batch_size": 0}, "BATCH_SIZE is 0; expected"),
    ({"patience": -1}, "PATIENCE is -1; expected a whole number, 1 or more,"),
    ({"dropout_rate": 1.5}, "DROPOUT_RATE is 1.5; expected a number from 0"),
    ({"steps": 0}, "TRAIN_STEPS_RELATIVE is 0"),
    ({"seeds": ()}, r"SEEDS is \(\), so nothing would"),
  ):
    with pytest.raises(ValueError, match=message):
      plain.train("skill_first", **settings)
  with pytest.raises(ValueError, match=r"at least 1; got \[3\]"):
    plain.with_prompts({"p": np.zeros(3)})
  with pytest.raises(ValueError, match=r"virtual: expected \[runs, any, 8\]"):
    plain.with_prompts({"p": np.zeros((2, 5))})
  with pytest.raises(CheckpointError):
    plain.with_prompts({"p": files / "sentencepiece.model"})
  with pytest.raises(ValueError, match="Did you mean 't5_1_1_base'"):
    api.load_model(
      files / "checkpoint_7",
      str(files / "sentencepiece.model"),
      size="t5_1_1_bas",
    )
  with pytest.raises(CheckpointError, match="choose the model"):
    api.load_model(
      files / "checkpoint_7",
      str(files / "sentencepiece.model"),
      size="t5_1_1_tiny",
    )


@pytest.fixture(scope="module")
def task(files):
  """Does the text speak of a cat? Declared as a user declares it."""
  rows = [
    {"text": text, "label": "sings" if "cat" in text else "waits"}
    for text in SENTENCES
  ]
  for split, part in (("train", rows), ("validation", rows[::5])):
    lines = "\n".join(map(json.dumps, part))
    (files / f"{split}.jsonl").write_text(lines)
  declared = custom.declare(
    "speaks_of_a_cat_api",
    {split: str(files / f"{split}.jsonl") for split in ("train", "validation")},
    template="{text}",
    target_column="label",
    label_words=("waits", "sings"),
  )
  yield declared
  vocabulary.configure(None)
  del spec._specs[declared.name]


@pytest.fixture(scope="module")
def quick(files):
  """Settings that make a training short."""
  return {
    "steps": 4,
    "prompt_length": 3,
    "batch_size": 6,
    "eval_period": 2,
    "by": "rank",
    "cache_dir": str(files / "tokens"),
  }


def stop_in_the_first_step(monkeypatch, number):
  """Let a signal come while the first step is trained."""
  unwatched = train.loop._add_tokens

  def stopped(*args):
    signal.raise_signal(number)
    return unwatched(*args)

  monkeypatch.setattr(train.loop, "_add_tokens", stopped)


@pytest.fixture
def same_flags(files, quick):
  """What makes `prompt-tuning train` do what `quick` does, with two seeds."""

  def flags(folder, task):
    macros = {
      "MODEL_DIR": str(folder),
      "INITIAL_CHECKPOINT_PATH": str(files / "checkpoint_7"),
      "VOCABULARY_FILE": str(files / "sentencepiece.model"),
      "TOKEN_CACHE_DIR": quick["cache_dir"],
      "MIXTURE_OR_TASK_NAME": task,
      "TASK_FEATURE_LENGTHS": {"inputs": 512, "targets": None},
      "EVAL_FEATURE_LENGTHS": {"inputs": 512, "targets": None},
      "TRAIN_STEPS": 7 + quick["steps"],
      "PROMPT_LENGTH": quick["prompt_length"],
      "BATCH_SIZE": quick["batch_size"],
      "EVAL_BATCH_SIZE": 4,
      "EVAL_PERIOD": quick["eval_period"],
      "EVALUATE_BY": quick["by"],
      "SEEDS": (0, 1),
      "ACTIVATION_DTYPE": "float32",
    }
    files_ = ("models/of_checkpoint", "prompts/from_class_labels")
    return [
      *(f"--gin_file={name}.gin" for name in (*files_, "runs/prompt_finetune")),
      "--gin_file=meshes/single.gin",
      *(f"--gin.{name}={value!r}" for name, value in macros.items()),
    ]

  yield flags
  gin.clear_config()


class TestTraining:
  def test_five_lines(self, files, task, quick):
    """As in the module's docstring."""
    model = api.load_model(
      files / "checkpoint_7", str(files / "sentencepiece.model")
    )
    trained = model.train(task, **quick)
    model = model.with_prompts({"cat": trained, "two": files / "two.npy"})
    assert len(model.predict(TEXTS, prompt="cat")) == 4
    assert len(model.score(TEXTS[:1], ["waits"], prompt="cat")) == 1
    assert repr(trained).startswith("Trained(scores={'speaks_of_a_cat_api'")
    assert repr(model) == "Model(names=('cat', 'two'))"

  @pytest.mark.parametrize(
    "method", [pt.LoRA(rank=2), pt.IA3(), pt.PrefixTuning(length=2)]
  )
  def test_other_methods_in_a_few_lines(
    self, plain, task, quick, method, tmp_path
  ):
    """As in docs/methods.md."""
    trained = plain.train(task, **quick, method=method)
    assert trained.origins[task.name].method.shape == CONFIG.shape
    with pytest.raises(ValueError, match=r"give a path without \.npy"):
      trained.save(tmp_path / "vectors.npy")
    trained.save(tmp_path / "export")
    names = {"trained": trained, "export": tmp_path / "export", "plain": None}
    model = plain.with_tuned(names)
    by_name = {
      name: model.score(TEXTS, ["waits"] * len(TEXTS), prompt=name)
      for name in names
    }
    np.testing.assert_array_equal(by_name["trained"], by_name["export"])
    assert not np.allclose(by_name["trained"], by_name["plain"])

  def test_methods_side_by_side(self, plain, task, quick, tmp_path):
    """Names are the user's; a method does what it does alone."""
    settings = {k: quick[k] for k in ("steps", "batch_size", "by", "cache_dir")}
    shown = {**settings, "split": None, "folder": tmp_path}
    methods = {"all of LoRA": pt.LoRA(rank=2), "IA3": pt.IA3()}
    found = plain.compare(task, methods, **shown)
    assert found.methods == ("frozen model", *methods)
    assert found.frozen
    alone = plain.train(task, method=pt.IA3(), eval_period=0, **settings)
    score = alone.scores[task.name][f"{task.name}/accuracy"]
    assert found.of("IA3", task.name) == [score]
    assert (tmp_path / "all_of_LoRA" / conclusion.SUMMARY).is_file()
    assert "| all of LoRA |" in (tmp_path / "comparison.md").read_text()
    with pytest.raises(ValueError, match=r"and none of .*model tuning"):
      plain.compare(task, {"model tuning": pt.IA3()}, **shown)

  def test_a_start_by_its_path_and_a_vote(
    self, plain, task, quick, files, tolerance
  ):
    """A prompt in a file starts another; several vote on a task."""
    still = {**quick, "learning_rate": 1e-9, "eval_period": 0}
    np.save(files / "start.npy", vectors(3))
    trained = plain.train(task, **still, initializer=files / "start.npy")
    np.testing.assert_allclose(
      load.vectors(trained.runs[task.name], 0)["encoder"],
      vectors(3),
      **tolerance["still"],
    )
    model = plain.with_prompts({"one": trained, "two": trained, "none": None})
    settings = {"by": "rank", "cache_dir": quick["cache_dir"]}
    found = model.evaluate_vote(task, **settings)
    assert found.members[2] == model.evaluate(task, prompt="none", **settings)
    assert found.vote == found.members[0] == found.members[1]
    with pytest.raises(ValueError, match="names a prompt twice"):
      model.evaluate_vote(task, ["one", "one"], **settings)

  def test_scores_are_those_of_the_prompts(self, plain, task, quick):
    trained = plain.train(task.name, **quick)
    assert trained.best == task.name
    assert trained.reason == "finished"
    assert trained.steps[task.name] in (7 + 2, 7 + 4)
    model = plain.with_prompts(trained.prompts)
    found = model.evaluate(
      task, prompt=task.name, by="rank", cache_dir=quick["cache_dir"]
    )
    accuracy = trained.scores[task.name]["speaks_of_a_cat_api/accuracy"]
    assert found["accuracy"] == accuracy
    examples = [
      {"inputs_pretokenized": s, "targets_pretokenized": w}
      for s in SENTENCES[::5]
      for w in ["sings" if "cat" in s else "waits"]
    ]
    again = model.evaluate(task.name, examples, task.name, ["rank"])
    assert again["accuracy"] == accuracy

  def test_the_model_is_neither_copied_nor_changed(
    self, plain, task, quick, monkeypatch
  ):
    before = fingerprint.checksum(plain.backbone.params)
    seen, unwatched = [], train.loop.train

    def watched(step, state, frozen, *args, **kwargs):
      seen.append(tree.flatten(frozen))
      return unwatched(step, state, frozen, *args, **kwargs)

    monkeypatch.setattr(train.loop, "train", watched)
    plain.train(task, **quick)
    for path, leaf in tree.flatten(plain.predictor.params).items():
      assert seen[0][f"model/{path}"] is leaf
    assert fingerprint.checksum(plain.backbone.params) == before

  @pytest.mark.parametrize(
    ("number", "error", "message"),
    [
      (signal.SIGINT, KeyboardInterrupt, None),
      (signal.SIGTERM, StoppedError, r"1 steps.* by SIGTERM\. It is saved in "),
    ],
  )
  def test_what_a_signal_stops_has_saved_and_stops_the_notebook(
    self, plain, task, quick, tmp_path, monkeypatch, number, error, message
  ):
    stop_in_the_first_step(monkeypatch, number)
    with pytest.raises(error, match=message):
      plain.train(task, **quick, folder=tmp_path / "run")
    step, _ = bundle.read_latest(tmp_path / "run" / "bundles")
    assert step == 1

  def test_what_is_not_kept_says_so_when_it_is_stopped(
    self, plain, task, quick, monkeypatch
  ):
    """No scores of a training that has not ended; a comparison has none too."""
    stop_in_the_first_step(monkeypatch, signal.SIGTERM)
    nothing = r"by SIGTERM\. Nothing was saved\. If you give a `folder`"
    with pytest.raises(StoppedError, match=nothing):
      plain.train(task, **quick)
    settings = {k: quick[k] for k in ("steps", "batch_size", "by", "cache_dir")}
    with pytest.raises(StoppedError, match=nothing):
      plain.compare(task, {"IA3": pt.IA3()}, **settings, split=None)

  def test_it_is_the_commands_training(
    self, files, plain, task, quick, tmp_path, same_flags, capsys
  ):
    """Same settings, same bytes: also all of the public code's defaults."""
    command, notebook = tmp_path / "command", tmp_path / "notebook"
    assert main.main(["train", *same_flags(command, task.name)]) == 0
    shown = capsys.readouterr().out
    trained = plain.train(task, **quick, seeds=(0, 1), folder=notebook)
    for k in (0, 1):
      ours, theirs = (
        bundle.read_latest(folder / "best" / f"run_{k}")[1]
        for folder in (notebook, command)
      )
      assert ours.manifest["run"] == theirs.manifest["run"]
      for path, array in theirs.trainable.items():
        assert ours.trainable[path].tobytes() == array.tobytes()
      np.testing.assert_array_equal(
        trained.prompts[f"seed{k}"].delta.virtual,
        theirs.trainable["tuner/encoder/prompt/prompt/prompt"],
      )
    left = {path.name for path in command.iterdir()}
    assert {path.name for path in notebook.iterdir()} == left - {
      "config.gin",
      "operative_config.gin",
    }
    end = trained.summary.replace(str(notebook), str(command))
    assert end
    assert shown.endswith(f"\n\n{end}\n")

  def test_a_folder_continues(self, plain, task, quick, tmp_path):
    whole = plain.train(task, **quick)
    short = {**quick, "steps": 2}
    plain.train(task, **short, folder=tmp_path)
    rest = plain.train(task, **quick, folder=tmp_path)
    assert rest.scores == whole.scores
    np.testing.assert_array_equal(
      rest.prompts[task.name].delta.virtual,
      whole.prompts[task.name].delta.virtual,
    )
    with pytest.raises(ValueError, match="holds another run"):
      plain.train(task, **quick, seeds=5, folder=tmp_path)

  def test_without_a_folder_nothing_stays(
    self, plain, task, quick, tmp_path, monkeypatch
  ):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    trained = plain.train(task, **quick)
    assert list(tmp_path.iterdir()) == []
    assert trained.summary == ""
    trained.save(tmp_path / "cat.npy")
    model = plain.with_prompts({"cat": tmp_path / "cat.npy"})
    trained_model = plain.with_prompts({"cat": trained})
    assert model.score(TEXTS, ["waits"] * 4) == (
      trained_model.score(TEXTS, ["waits"] * 4)
    )

  def test_a_bank(self, plain, task, quick, tolerance):
    rates = {"learning_rate": (0.3, 1e-6), "seeds": (1, 2)}
    bank = plain.train(task, **quick, **rates)
    names = ["lr0.3_seed1", "lr0.3_seed2", "lr1e-06_seed1", "lr1e-06_seed2"]
    assert list(bank.prompts) == list(bank.scores) == list(bank.steps) == names
    scores = [own[f"{task.name}/accuracy"] for own in bank.scores.values()]
    assert bank.best == names[int(np.argmax(scores))]
    alone = plain.train(task, **quick, seeds=2, learning_rate=0.3)
    np.testing.assert_allclose(
      bank.prompts["lr0.3_seed2"].delta.virtual,
      alone.prompts[task.name].delta.virtual,
      **tolerance["same"],
    )
    model = plain.with_prompts(bank.prompts)
    assert len(model.vote(TEXTS, names, ["waits", "sings"])) == 4

  def test_where_prompts_start_from(self, plain, task, quick, tolerance):
    """Label words, then common tokens; a rate of almost 0 keeps them there."""
    still = {**quick, "steps": 1, "learning_rate": 1e-9}
    table = np.asarray(plain.backbone.params["token_embedder"]["embedding"])
    encode = plain.predictor.vocabulary.encode
    words = [table[encode(word)].mean(0) for word in task.label_words]
    (start,) = plain.train(task, **still).prompts[task.name].delta.virtual
    np.testing.assert_allclose(start[:2], words, **tolerance["still"])
    assert np.abs(table - np.asarray(start)[2]).max(1).min() < 1e-3
    zeros = Uniform(0.0, 1e-9)
    (other,) = (
      plain.train(task, **still, initializer=zeros)
      .prompts[task.name]
      .delta.virtual
    )
    assert np.abs(other).max() <= 1e-7

  def test_without_a_validation_split_the_last_is_kept(
    self, files, plain, task, quick, caplog
  ):
    unscored = custom.declare(
      "no_validation",
      {"train": task.splits["train"]},
      template="{text}",
      target_column="label",
    )
    trained = plain.train(unscored, **quick)
    assert "no_validation has no validation split" in caplog.text
    assert trained.scores == {"no_validation": {}}
    assert trained.steps == {"no_validation": 7 + 4}

  def test_half_precision(self, files, task, quick):
    half = api.load_model(
      files / "checkpoint_7",
      str(files / "sentencepiece.model"),
      dtype="bfloat16",
    )
    trained = half.train(task, **quick)
    assert trained.prompts[task.name].delta.virtual.dtype == np.float32
    with_it = half.with_prompts({"cat": trained})
    assert len(with_it.predict(TEXTS)) == 4

  def test_mistakes(self, plain, task, quick):
    def train(task=task, **changes):
      plain.train(task, **{**quick, **changes})

    with pytest.raises(ValueError, match="Did you mean 'speaks_of_a_cat_api'"):
      train("speaks_of_a_cat_ap")
    with pytest.raises(ValueError, match="TRAIN_STEPS_RELATIVE is 0; expected"):
      train(steps=0)
    with pytest.raises(ValueError, match="BATCH_SIZE is -1; expected"):
      train(batch_size=-1)
    with pytest.raises(ValueError, match="no vectors; set PROMPT_LENGTH"):
      train(prompt_length=0)
    with pytest.raises(ValueError, match="'ranking': expected 'generation'"):
      train(by="ranking")
    with pytest.raises(ValueError, match="The seed is 'a'; expected a whole"):
      train(seeds="a")


def test_the_published_vocabulary_and_a_real_checkpoint(shared_data):
  """T5's pieces, prompt-tuning's own tiny T5X checkpoint, five vectors."""
  model = api.load_model(
    shared_data / "t5x_tiny" / "checkpoint_3",
    str(shared_data / "t5_vocab" / "sentencepiece.model"),
  )
  values = np.full((5, model.predictor.config.emb_dim), 0.5, np.float32)
  model = model.with_prompts({"p": values})
  texts = ["choice1: It was wet. choice2: It was dry.", "question: cause"]
  rankings = model.rank(texts, ["choice1", "choice2"])
  assert all(ranking.scores[0] != ranking.scores[1] for ranking in rankings)
  assert len(model.predict(texts, length=3)) == 2


def test_no_tensorflow_and_no_gin(files, plain, task, quick):
  """From import to training, in a process of its own, with warm tokens."""
  plain.train(task, **quick)
  script = textwrap.dedent(
    """
    import json, sys
    from prompt_tuning import api
    from prompt_tuning.data import custom
    model = api.load_model(sys.argv[1] + "/checkpoint_7",
                           sys.argv[1] + "/sentencepiece.model")
    task = custom.declare(
      "speaks_of_a_cat_api",
      {s: f"{sys.argv[1]}/{s}.jsonl" for s in ("train", "validation")},
      template="{text}",
      target_column="label",
      label_words=("waits", "sings"),
    )
    trained = model.train(task, **json.loads(sys.argv[2]))
    model = model.with_prompts(
      {"two": sys.argv[1] + "/two.npy", "cat": trained}
    )
    said = model.predict(["the cat sings"], prompt="cat")
    loaded = {name.split(".")[0] for name in sys.modules}
    heavy = {"tensorflow", "seqio", "gin", "absl", "torch", "transformers"}
    print(json.dumps([said, sorted(loaded & heavy)]))
    """
  )
  done = subprocess.run(
    [sys.executable, "-c", script, str(files), json.dumps(quick)],
    check=True,
    capture_output=True,
    text=True,
  )
  said, loaded = json.loads(done.stdout.splitlines()[-1])
  assert len(said) == 1
  assert set(loaded) <= {"absl"}  # flax's own dependencies log through it
