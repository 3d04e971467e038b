"""The names of token caches stay: a new version reads what an older one made.

After an intended change of what a cache holds, raise `cache.FORMAT` or the
task's `preprocessor_version`, and write the new keys here.
"""

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
from prompt_tuning.data.ragged import from_rows

ROWS = """{"text": "warm", "kind": 1}
{"text": "cold", "kind": 0}
"""


@pytest.fixture
def key_of(tmp_path, monkeypatch):
  """A function from a task's name to the key of its training split."""
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))
  monkeypatch.setattr(corpus, "_corpora", dict(corpus._corpora))
  real = cache._fingerprint

  def fingerprint(task, *arguments):
    return "of the records" if task.is_from_tfds else real(task, *arguments)

  monkeypatch.setattr(cache, "_fingerprint", fingerprint)
  tokens = from_rows([np.array([5, 1])], np.uint16)
  columns = from_rows([np.frombuffer(b"{}", np.uint8)], np.uint8)
  rows = token_rows.TokenRows(
    {"inputs": tokens, "targets": tokens, "columns": columns},
    {"inputs": 0, "targets": 0},
  )
  monkeypatch.setattr(tokenise, "tokenise", lambda *unused: rows)
  vocabulary.configure("embedded:ladder_1")
  (tmp_path / "rows.jsonl").write_text(ROWS)
  files = {"train": str(tmp_path / "rows.jsonl")}
  custom.declare("pinned_rooms", files, "Is {text} it?", "kind", ("no", "yes"))
  (tmp_path / "words.txt").write_text("one two three\n\nfour five six\n")
  words = corpus.Text("pinned_words", {"train": str(tmp_path / "words.txt")})
  corpus.declare(words, corpus.Denoising())

  def key(name):
    lengths = {"inputs": 16, "targets": None}
    ((tokens, _),) = cache.load(name, "train", lengths, tmp_path / "tokens")
    return tokens.key

  yield key
  vocabulary.configure(None)


@pytest.mark.parametrize(
  ("name", "expected"),
  [
    ("taskless_super_glue_copa_v102", "7d12e48db17fce6e3619432a"),
    ("taskless_super_glue_copa_v102_k4_seed1", "da7359bc0b6a952460bcf485"),
    ("skill_first", "7a7d5788402e89654805f220"),
    ("pinned_rooms", "93ff884c3e07c89d82397a1a"),
    ("pinned_rooms_k1_seed0", "6aee8c96ae1ab8c1b68969b1"),
    ("pinned_words_span_corruption", "8a36ee124bcb9ba3ba0a0184"),
  ],
)
def test_a_key_stays_what_it_is(key_of, name, expected):
  assert key_of(name) == expected
