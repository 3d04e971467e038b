"""The summary of a split against numbers counted by hand."""

import json

import numpy as np

from prompt_tuning.data import summary
from prompt_tuning.data.cache import TokenCache
from prompt_tuning.data.ragged import from_rows


def make(targets):
  texts = [
    json.dumps({"inputs_pretokenized": "", "targets_pretokenized": text})
    for text in targets
  ]
  n = len(targets)
  return TokenCache(
    task="invented",
    split="train",
    key="key",
    lengths={"inputs": 10, "targets": None},
    inputs=from_rows([np.ones(i + 1) for i in range(n)], np.uint16),
    targets=from_rows([np.ones(2)] * n, np.uint16),
    columns=from_rows(
      [np.frombuffer(text.encode(), np.uint8) for text in texts], np.uint8
    ),
    truncated={"inputs": 1, "targets": 0},
  )


def test_lengths_and_labels():
  found = summary.summarise(make(["yes", "no", "yes", "yes"]))
  assert found.count == 4
  assert found.mean == {"inputs": 2.5, "targets": 2.0}
  assert found.percentiles["inputs"] == (1, 2, 2, 3, 4, 4, 4, 4)
  assert found.labels == {"yes": 0.75, "no": 0.25}
  assert found.truncated == {"inputs": 1, "targets": 0}


def test_many_different_targets_are_no_labels():
  assert summary.summarise(make([str(i) for i in range(21)])).labels == {}
