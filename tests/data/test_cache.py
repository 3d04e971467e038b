"""The token cache: made once, safe, exact, and free of TensorFlow when warm."""

import errno
import itertools
import json
import logging
import multiprocessing
import os
import stat
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from prompt_tuning.data import (
  cache,
  corpus,
  custom,
  spec,
  token_rows,
  tokenise,
  vocabulary,
)
from prompt_tuning.data.prepare import prepare
from prompt_tuning.data.tasks import registry

TASK = "taskless_super_glue_copa_v102"
LENGTHS = {"inputs": 16, "targets": 8}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  """COPA and MultiRC with invented rows, in a TFDS directory."""
  root = tmp_path_factory.mktemp("source")
  (root / "COPA").mkdir()
  for split in ("train", "val"):
    rows = [
      {
        "premise": "It rained " + "all day " * i,
        "choice1": "It was wet.",
        "choice2": "It was dry.",
        "question": "effect",
        "label": i % 2,
        "idx": i,
      }
      for i in range(12 if split == "train" else 5)
    ]
    (root / f"COPA/{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
  (root / "ReCoRD").mkdir()
  record = {
    "idx": 0,
    "passage": {
      "text": "Mira met Ana.",
      "entities": [{"start": 0, "end": 3}, {"start": 9, "end": 11}],
    },
    "qas": [
      {
        "idx": 0,
        "query": "@placeholder left.",
        "answers": [{"text": "Mira"}, {"text": "Ana"}],
      }
    ],
  }
  (root / "ReCoRD/val.jsonl").write_text(json.dumps(record))
  out = tmp_path_factory.mktemp("tfds")
  prepare([root], out)
  return out


@pytest.fixture(autouse=True)
def words(vocabulary_file):
  vocabulary.configure(vocabulary_file)
  yield vocabulary.load()
  vocabulary.configure(None)


def load(split, cache_dir, data_dir, name=TASK, lengths=LENGTHS):
  ((tokens, rate),) = cache.load(name, split, lengths, cache_dir, data_dir)
  assert rate == 1.0
  return tokens


@pytest.mark.parametrize("limit", [1, 16, 40, None])
def test_rows_equal_seqios(data_dir, tmp_path, limit):
  """With its trimming: one less than the limit, then EOS."""
  lengths = {"inputs": limit, "targets": 8}
  tokens = load("train", tmp_path, data_dir, lengths=lengths)
  task = registry.get(TASK)
  task.source.tfds_dataset.override_data_dir(str(data_dir))
  dataset = task.get_dataset(
    {"inputs": limit or 10**6, "targets": 8}, "train", shuffle=False
  )
  expected = list(dataset.as_numpy_iterator())
  assert len(tokens) == len(expected) == 12
  whole = list(
    task.get_dataset(None, "train", shuffle=False).as_numpy_iterator()
  )
  for index, example in enumerate(expected):
    for feature in token_rows.FEATURES:
      row = getattr(tokens, feature)[index]
      np.testing.assert_array_equal(row, example[feature])
    found = tokens.example(index)
    assert (
      found["inputs_pretokenized"].encode() == (example["inputs_pretokenized"])
    )
    assert found["idx"] == example["idx"]
  cut = sum(len(row["inputs"]) > limit for row in whole) if limit else 0
  assert tokens.truncated == {"inputs": cut, "targets": 0}


def test_truncation_is_reported(data_dir, tmp_path, caplog):
  with caplog.at_level(logging.WARNING, logger=cache.__name__):
    load("train", tmp_path, data_dir)
  (message,) = [
    r.getMessage() for r in caplog.records if r.name == cache.__name__
  ]
  assert "12 of 12 examples have more than 16 tokens in inputs" in message


NUMBERS = itertools.count()


@pytest.fixture
def own_rows(tmp_path, monkeypatch):
  """A function: targets -> the tokens of a task of one's own."""
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))

  def make(targets, label_words=(), targets_length=8, split="train"):
    name = f"own_{next(NUMBERS)}"  # seqio forgets none
    path = tmp_path / f"{name}.jsonl"
    rows = [{"text": "a text", "target": target} for target in targets]
    path.write_text("\n".join(map(json.dumps, rows)))
    custom.declare(name, {split: str(path)}, "{text}", "target", label_words)
    lengths = {"inputs": 16, "targets": targets_length}
    return load(split, tmp_path / "tokens", None, name, lengths)

  return make


@pytest.mark.parametrize(
  ("label_words", "length", "message"),
  [
    (("猫", "犬"), 8, r"'猫' and '犬' have the same ids, .*Choose other"),
    (
      ("good 猫", "bad", "good 犬"),
      None,
      r"'good 猫' and 'good 犬' have the",
    ),
    (("no", "yes"), 1, r"'no' and 'yes' .* cut to 1 tokens: raise TASK_FEAT"),
  ],
)
def test_label_words_must_have_ids_of_their_own(
  own_rows, label_words, length, message
):
  """The model learnt the first of them for ever."""
  with pytest.raises(ValueError, match=message):
    own_rows(label_words, label_words, length)


def test_targets_that_cannot_be_written_are_counted(own_rows, caplog):
  own_rows(["plain", "words"])
  assert not caplog.text
  own_rows(["plain", "猫", "a cat", "ein 猫"])
  own_rows(["", ""], split="test")  # have no label
  (record,) = [r for r in caplog.records if r.name == cache.__name__]
  assert " train: 2 of 4 targets have characters" in record.getMessage()
  assert "such as '猫'" in record.getMessage()


def test_a_corpus_shows_what_it_cannot_write(tmp_path, monkeypatch, caplog):
  """Its examples have ids only: a character that is lost reads as such."""
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))
  monkeypatch.setattr(corpus, "_corpora", dict(corpus._corpora))
  path = tmp_path / "cats.txt"
  path.write_text("猫 " * 40, encoding="utf-8")
  text = corpus.Text("cats", {"train": str(path)})
  corpus.declare(text, corpus.Denoising("prefix_lm"))
  lengths = {"inputs": 64, "targets": 64}
  load("train", tmp_path / "tokens", None, "cats_prefix_lm", lengths)
  assert "such as '⁇ " in caplog.text.replace("' ⁇", "'⁇")


def test_nothing_is_trained_on_rows_without_answers(own_rows):
  with pytest.raises(ValueError, match=r"train: 2 of 3 examples have no label"):
    own_rows([spec.UNLABELLED, "a", spec.UNLABELLED])


def test_lists_and_group_ids_survive(data_dir, tmp_path):
  name = "taskless_super_glue_record_v102"
  tokens = load("validation", tmp_path, data_dir, name)
  example = tokens.example(0)
  assert sorted(example["answers"]) == ["Ana", "Mira"]
  assert {name: example[name] for name in ("idx/passage", "idx/query")} == {
    "idx/passage": 0,
    "idx/query": 0,
  }


def test_a_warm_cache_is_not_made_again(data_dir, tmp_path, monkeypatch):
  first = load("train", tmp_path, data_dir)
  monkeypatch.setattr(tokenise, "tokenise", None)
  second = load("train", tmp_path, data_dir)
  assert second.key == first.key
  np.testing.assert_array_equal(second.inputs.values, first.inputs.values)
  assert isinstance(second.inputs.values, np.memmap)
  same = load("train", tmp_path, data_dir, f"{TASK}_examples")
  assert same.key == first.key, "logging examples does not change them"


def test_the_warm_path_imports_neither_tensorflow_nor_seqio(
  data_dir, tmp_path, words
):
  """From the cache to batches, in a process of its own."""
  load("train", tmp_path, data_dir)
  program = textwrap.dedent(f"""
    import sys
    from prompt_tuning.core.placement import Placement
    from prompt_tuning.data import bank, cache, evaluation, pipeline, vocabulary
    vocabulary.configure({words.path!r})
    ((tokens, _),) = cache.load(
      {TASK!r}, "train", {LENGTHS!r}, {str(tmp_path)!r}, {str(data_dir)!r}
    )
    layout = pipeline.Layout(Placement((0, 1)), 32128)
    runs = [
      pipeline.TrainBatches(tokens, 4, seed, layout=layout) for seed in (0, 1)
    ]
    batches = iter(bank.BankBatches(runs).prefetch())
    batch = next(batches)
    batches.close()
    assert batch["run_ids"].tolist() == [0] * 4 + [1] * 4
    list(evaluation.EvaluationBatches(tokens, 4))
    heavy = ("tensorflow", "tensorflow_datasets", "tensorflow_text", "seqio")
    print([name for name in heavy if name in sys.modules], len(tokens))
  """)
  done = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, check=False
  )
  assert done.stdout.strip() == "[] 12", done.stderr


@pytest.mark.parametrize("file", ["inputs.values.npy", "manifest.json"])
def test_damage_is_found_and_repaired(data_dir, tmp_path, caplog, file):
  tokens = load("train", tmp_path, data_dir)
  (path,) = tmp_path.glob(f"*/train/{tokens.key}/{file}")
  values = np.array(tokens.inputs.values)  # the other is mapped to the file
  content = bytearray(path.read_bytes())
  content[-3] ^= 1
  path.write_bytes(content[:-1] if file == "manifest.json" else content)
  with caplog.at_level(logging.WARNING, logger=cache.__name__):
    again = load("train", tmp_path, data_dir)
  assert "Making it again." in caplog.text
  np.testing.assert_array_equal(again.inputs.values, values)
  assert [p.name for p in path.parent.parent.iterdir()] == [tokens.key]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_cache_has_the_permissions_of_its_folder(own_rows, tmp_path, umask):
  """Others may read, and add to, what lies in a folder that is theirs too."""
  (tmp_path / "tokens").mkdir()
  (tmp_path / "tokens").chmod(0o2775)
  before = os.umask(umask)
  try:
    own_rows(["a", "b"])
  finally:
    os.umask(before)
  paths = list((tmp_path / "tokens").rglob("*"))
  assert len(paths) == 3 + 7
  for path in paths:
    mode = stat.S_IMODE(path.stat().st_mode)
    assert mode == (0o2775 if path.is_dir() else 0o664)


@pytest.mark.parametrize(
  ("error", "message"),
  [
    (
      errno.EACCES,
      r"TOKEN_CACHE_DIR .* belongs to another user: .*chmod -R g\+rwX",
    ),
    (errno.EMFILE, "Too many open files"),
  ],
)
def test_what_may_not_be_read_is_not_damaged(
  own_rows, tmp_path, monkeypatch, error, message
):
  """It was deleted, or that was tried."""
  tokens = own_rows(["a", "b"])
  lengths = {"inputs": 16, "targets": 8}
  again = (tokens.task, tokens.split, lengths, tmp_path / "tokens")
  files_before = sorted((tmp_path / "tokens").rglob("*"))

  def refused(path):
    raise OSError(error, os.strerror(error), str(path))

  monkeypatch.setattr(cache.files, "file_sha256", refused)
  with pytest.raises((ValueError, OSError), match=message):
    cache.load(*again)
  assert sorted((tmp_path / "tokens").rglob("*")) == files_before
  monkeypatch.undo()


def test_what_killed_processes_left_goes(own_rows, tmp_path):
  root = tmp_path / "tokens" / f"own_{next(NUMBERS) + 1}" / "train"
  old = [f"{24 * 'a'}.tmp-01234567", f".{24 * 'b'}-x2x_", ".damaged-abc"]
  young = f"{24 * 'c'}.tmp-89abcdef"
  for name in (*old, young):
    (root / name).mkdir(parents=True)
    (root / name / "inputs.values.npy").write_bytes(b"half")
  for path in (root / name for name in old):
    for stale in (*path.iterdir(), path):
      os.utime(stale, (1, 1))
  tokens = own_rows(["a", "b"])
  assert {path.name for path in root.iterdir()} == {tokens.key, young}


@pytest.mark.parametrize("text", ["[]", '{"files": {}, "fields": {}}', "null"])
def test_a_foreign_manifest_is_replaced(data_dir, tmp_path, text):
  tokens = load("train", tmp_path, data_dir)
  (path,) = tmp_path.glob(f"*/train/{tokens.key}/manifest.json")
  path.write_text(text)
  assert len(load("train", tmp_path, data_dir)) == len(tokens)


def test_damage_without_the_data_is_a_clear_error(data_dir, tmp_path):
  tokens = load("train", tmp_path, data_dir)
  (path,) = tmp_path.glob(f"*/train/{tokens.key}/inputs.values.npy")
  nowhere = tmp_path / "nowhere"
  assert len(load("train", tmp_path, nowhere)) == len(tokens)
  content = bytearray(path.read_bytes())
  content[-3] ^= 1
  path.write_bytes(content[:-1])
  with pytest.raises(ValueError, match=r"has changed\. The data that it was"):
    load("train", tmp_path, nowhere)


def test_whatever_changes_the_rows_changes_the_key(
  data_dir, tmp_path, monkeypatch
):
  keys = [load("train", tmp_path, data_dir).key]
  keys.append(load("validation", tmp_path, data_dir).key)
  longer = {"inputs": 17, "targets": 8}
  keys.append(load("train", tmp_path, data_dir, lengths=longer).key)
  keys.append(load("train", tmp_path, data_dir, TASK.split("_", 1)[1]).key)
  task = spec.task(TASK)
  newer = {**task.identity(), "preprocessor_version": 2}
  with monkeypatch.context() as patch:
    patch.setattr(spec.TaskSpec, "identity", lambda self: newer)
    keys.append(load("train", tmp_path, data_dir).key)
  monkeypatch.setattr(vocabulary.load(), "sha256", "another")
  keys.append(load("train", tmp_path, data_dir).key)
  assert len(set(keys)) == len(keys)


def test_changed_source_rows_are_noticed(tmp_path):
  """The same file names and counts, other content."""
  keys = []
  for answer in ("wet", "dry"):
    source = tmp_path / "source" / "COPA"
    source.mkdir(parents=True, exist_ok=True)
    row = {
      "premise": "It rained.",
      "choice1": f"It was {answer}.",
      "choice2": "It snowed.",
      "question": "effect",
      "label": 0,
      "idx": 0,
    }
    (source / "train.jsonl").write_text(json.dumps(row))
    prepare([source], tmp_path / answer, overwrite=True)
    tokens = load("train", tmp_path / "cache", tmp_path / answer)
    assert answer in tokens.example(0)["inputs_pretokenized"]
    keys.append(tokens.key)
  assert keys[0] != keys[1]


def test_a_cache_without_its_source(data_dir, tmp_path):
  """On a machine to which only caches were copied."""
  made = load("train", tmp_path, data_dir)
  found = load("train", tmp_path, tmp_path / "no data here")
  assert found.key == made.key


def build(arguments):
  """Build a cache in a process of its own, at the same time as others."""
  vocabulary_path, cache_dir, data_dir = arguments
  vocabulary.configure(vocabulary_path)
  tokens = load("train", cache_dir, data_dir)
  return tokens.key, tokens.inputs.values.tolist()


@pytest.mark.slow
def test_two_processes_build_at_once(data_dir, tmp_path, words):
  context = multiprocessing.get_context("spawn")
  with context.Pool(2) as pool:
    job = (words.path, str(tmp_path), str(data_dir))
    first, second = pool.map(build, [job, job], chunksize=1)
  assert first == second
  (directory,) = tmp_path.glob("*/train")
  assert [p.name for p in directory.iterdir()] == [first[0]]


def test_the_loser_of_a_race_adopts_the_winners(
  data_dir, tmp_path, monkeypatch
):
  """Another process finishes while this one is still tokenising."""
  real = tokenise.tokenise

  def overtaken(*arguments):
    monkeypatch.setattr(tokenise, "tokenise", real)
    load("train", tmp_path, data_dir)
    return real(*arguments)

  monkeypatch.setattr(tokenise, "tokenise", overtaken)
  tokens = load("train", tmp_path, data_dir)
  (directory,) = tmp_path.glob("*/train")
  assert [p.name for p in directory.iterdir()] == [tokens.key]
  assert len(tokens) == 12


def test_a_mixture_gives_every_part(data_dir, tmp_path, monkeypatch):
  names = (TASK, "taskless_super_glue_record_v102")
  rates = {names[0]: 3.0, names[1]: 1.0}
  mixture = spec.MixtureSpec("invented_mixture", rates, "unused")
  monkeypatch.setitem(spec._specs, mixture.name, mixture)
  parts = cache.load(mixture.name, "validation", LENGTHS, tmp_path, data_dir)
  assert [(part.task, len(part), rate) for part, rate in parts] == [
    (names[0], 5, 3.0),
    (names[1], 2, 1.0),  # one per answer
  ]


def test_a_k_shot_subset(data_dir, tmp_path):
  name = f"{TASK}_k2_seed0"
  train = load("train", tmp_path, data_dir, name)
  assert [train.example(i)["targets_pretokenized"] for i in range(4)].count(
    "choice1"
  ) == 2
  assert len(train) == 4
  assert len(load("validation", tmp_path, data_dir, name)) == 5


def test_a_users_own_file(tmp_path, monkeypatch):
  """Keyed by its content, wherever it lies."""
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))
  keys = []
  for folder, text in (("a", "warm"), ("b", "warm"), ("c", "cold")):
    path = tmp_path / folder / "rows.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps({"text": text, "label": "yes"}))
    name = f"own_{text}"
    monkeypatch.setattr(
      spec, "_specs", {k: v for k, v in spec._specs.items() if k != name}
    )
    custom.declare(name, {"train": str(path)}, "{text}", "label", ("no", "yes"))
    tokens = load("train", tmp_path / "cache", None, name)
    assert tokens.example(0)["inputs_pretokenized"] == text
    keys.append(tokens.key)
  assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"name": "taskless_super_glue_cop_v102"}, "Did you mean 'taskless_super"),
    ({"split": "dev"}, "has no split 'dev'"),
    ({"lengths": {"inputs": 5}}, "TASK_FEATURE_LENGTHS names inputs; expected"),
    (
      {"lengths": {"inputs": 0, "targets": 5}},
      "inputs is 0; expected at least",
    ),
  ],
)
def test_bad_arguments(data_dir, tmp_path, change, message):
  arguments = {"name": TASK, "split": "train", "lengths": LENGTHS, **change}
  with pytest.raises(ValueError, match=message):
    cache.load(**arguments, cache_dir=tmp_path, data_dir=data_dir)


def test_data_that_is_nowhere(tmp_path, monkeypatch):
  def unreachable(self, **unused):
    raise ConnectionError("no route to host")

  import tensorflow_datasets as tfds

  monkeypatch.setattr(
    tfds.core.DatasetBuilder, "download_and_prepare", unreachable
  )
  with pytest.raises(
    ValueError, match="could not be fetched: no route to host"
  ):
    load("train", tmp_path / "cache", tmp_path / "nothing")
