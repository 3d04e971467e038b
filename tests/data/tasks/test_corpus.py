"""Pre-training through seqio gives what plain Python makes of the text."""

import json

import numpy as np
import pytest
import seqio

from prompt_tuning.data import cache, corpus, denoising, spec, tokenise
from prompt_tuning.data.corpus import Denoising, Skills, Text
from prompt_tuning.data.tasks import registry
from tests.invented_corpus import documents, write_jsonl

LENGTHS = {"inputs": None, "targets": None}
QUESTION = {"inputs": "which thing is it ?", "targets": "the red stone ."}
TEXTS = documents(6, seed=8)
EOS = 1


@pytest.fixture(autouse=True)
def _own_registries(monkeypatch, use_invented_vocabulary):
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))
  monkeypatch.setattr(corpus, "_corpora", dict(corpus._corpora))
  for known in (seqio.TaskRegistry, seqio.MixtureRegistry):
    monkeypatch.setattr(known, "_REGISTRY", dict(known._REGISTRY))


@pytest.fixture
def text(tmp_path):
  """Six texts and, between them, a question; nothing of one token or none."""
  rows = [{"text": t} for t in TEXTS]
  rows.insert(2, QUESTION)
  rows.append({"text": "."})
  path = write_jsonl(tmp_path / "a.jsonl", rows)
  return Text("invented", {"train": path, "validation": path})


def read(name, tmp_path, split="train"):
  """Read a task through the token cache: (inputs, targets) of every example."""
  stores = cache.load(name, split, LENGTHS, tmp_path / "cache")
  ((store, _),) = stores
  pairs = zip(store.inputs, store.targets, strict=True)
  return store, [(a.tolist(), b.tolist()) for a, b in pairs]


def expected(how, vocabulary):
  """Tokenise and corrupt every document, without TensorFlow."""
  pairs = []
  for number, words in enumerate([*TEXTS[:2], QUESTION, *TEXTS[2:]]):
    if words is QUESTION:
      question, answer = (vocabulary.encode(QUESTION[k]) for k in QUESTION)
      if how.objective == "span_corruption":
        mark = vocabulary.size - 1
        question, answer = [*question, mark], [mark, *answer]
      pairs.append((question, answer))
      continue
    ids = np.asarray(vocabulary.encode(words))
    for index in range(how.passes):
      for piece, tokens in enumerate(denoising.chunks(ids, how.chunk_length)):
        key = (how.seed, index, number, piece)
        if how.objective == "span_corruption":
          pair = denoising.corrupt_spans(
            tokens, vocabulary.sentinel, how.noise_density, how.mean_span, *key
          )
        else:
          pair = denoising.cut(tokens, *key)
        pairs.append((pair[0].tolist(), pair[1].tolist()))
  return [([*inputs, EOS], [*targets, EOS]) for inputs, targets in pairs]


@pytest.mark.parametrize(
  "how",
  [
    Denoising(chunk_length=20),
    Denoising(chunk_length=20, passes=2, seed=3, noise_density=0.5),
    Denoising("prefix_lm", chunk_length=16),
    Denoising("prefix_lm", chunk_length=1_000, passes=2),
  ],
)
def test_the_seqio_task_gives_what_python_gives(
  text, how, tmp_path, use_invented_vocabulary
):
  task = corpus.declare(text, how)
  store, pairs = read(task.name, tmp_path)
  assert pairs == expected(how, use_invented_vocabulary)
  assert store.truncated == {"inputs": 0, "targets": 0}
  chunks = sum(
    -(-len(use_invented_vocabulary.encode(t)) // how.chunk_length)
    for t in TEXTS
  )
  assert len(pairs) == how.passes * chunks + 1, "an answer has no noise"


def test_texts_are_not_stored_with_the_tokens(text, tmp_path):
  store, _ = read(corpus.declare(text, Denoising()).name, tmp_path)
  assert store.examples() == [{spec.INPUTS: "", spec.TARGETS: ""}] * len(store)


def test_passes_differ_in_noise(text, tmp_path):
  task = corpus.declare(text, Denoising(chunk_length=1_000, passes=3))
  _, pairs = read(task.name, tmp_path)
  of_first_document = [tuple(inputs) for inputs, _ in pairs[:3]]
  assert len(set(of_first_document)) == 3


def test_a_warm_cache_is_read(text, tmp_path, monkeypatch):
  task = corpus.declare(text, Denoising())
  _, cold = read(task.name, tmp_path)
  monkeypatch.setattr(tokenise, "tokenise", None)
  store, warm = read(task.name, tmp_path)
  assert warm == cold
  assert store.task == "invented_span_corruption"


def test_a_mixture_is_registered_with_its_tasks(text, tmp_path):
  questions = Skills(20, rate=0.5)
  mixture = corpus.declare_mixture([text, questions], Denoising())
  found = registry.get(mixture.name)
  assert isinstance(found, seqio.Mixture)
  rates = {task.name: found.get_rate(task) for task in found.tasks}
  assert rates == dict(mixture.rates)
  assert registry.get(mixture.name) is found
  stores = cache.load(mixture.name, "train", LENGTHS, tmp_path / "cache")
  assert [rate for _, rate in stores] == [1.0, 0.5]
  assert len(stores[1][0]) == 20
  held_out = cache.load(mixture.name, "validation", LENGTHS, tmp_path / "cache")
  assert [len(store) for store, _ in held_out] == [len(stores[0][0]), 1024]


def test_questions_are_asked_and_answered(tmp_path, use_invented_vocabulary):
  vocabulary = use_invented_vocabulary
  source = Skills(10)
  task = corpus.declare(source, Denoising())
  _, pairs = read(task.name, tmp_path)
  for document, (inputs, targets) in zip(
    source.documents("train"), pairs, strict=True
  ):
    mark = vocabulary.sentinel(0)
    assert inputs == [*vocabulary.encode(document.text), mark, EOS]
    assert targets == [mark, *vocabulary.encode(document.answer), EOS]


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("a.jsonl", b"", r"a\.jsonl: the corpus is empty"),
    ("a.txt", b"the cat\n\nthe \0 dog", r"a\.txt:3: the line has a zero"),
    ("a.txt", b".", "no examples of the source are left"),
    ("a.txt.xz", b"the", "cannot be decompressed"),
  ],
)
def test_bad_files_are_plain_errors(tmp_path, name, content, message):
  """Not TensorFlow's, which nobody catches; and no cache is left behind."""
  (tmp_path / name).write_bytes(content)
  source = Text("bad", {"train": str(tmp_path / name)})
  task = corpus.declare(source, Denoising())
  with pytest.raises(ValueError, match=message):
    read(task.name, tmp_path)
  assert not list(tmp_path.glob("cache/**/manifest.json"))


def test_the_cache_follows_the_files_and_the_settings(text, tmp_path):
  """What a cache depends on is in its key."""
  keys = set()
  for number, changes in enumerate(
    [{}, {"passes": 2}, {"seed": 1}, {"chunk_length": 30}, {"mean_span": 2.0}]
  ):
    source = Text(f"t{number}", text.files)
    task = corpus.declare(source, Denoising(**changes))
    keys.add(json.dumps(task.identity()["content"]))
  rows = [{"text": "the cat sees the dog ."}]
  other = write_jsonl(tmp_path / "b.jsonl", rows)
  task = corpus.declare(Text("other", {"train": other}), Denoising())
  keys.add(json.dumps(task.identity()["content"]))
  assert len(keys) == 6
