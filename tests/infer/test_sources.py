"""Inputs from files: every line once, errors that name the line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.infer.sources import read


def test_text_lines(tmp_path):
  path = tmp_path / "in.txt"
  # A line separator of Unicode is part of a text; a blank line is an input.
  path.write_bytes("one\ntwo\u2028still\r\n\nlast".encode())
  texts = [example["inputs_pretokenized"] for example in read(path)]
  assert texts == ["one", "two\u2028still", "", "last"]


@given(st.lists(st.text(max_size=20), max_size=5))
def test_json_lines_hold_any_text(tmp_path_factory, texts):
  path = tmp_path_factory.mktemp("json") / "in.jsonl"
  records = [
    {"inputs": text, "targets": text[:3], "prompt": "p"} for text in texts
  ]
  path.write_text("\n\n".join(map(json.dumps, records)), encoding="utf-8")
  assert list(read(path)) == [
    {
      "inputs_pretokenized": text,
      "targets_pretokenized": text[:3],
      "prompt": "p",
    }
    for text in texts
  ]


def test_names_of_tasks_are_understood_too(tmp_path):
  path = tmp_path / "in.jsonl"
  path.write_text('{"inputs_pretokenized": "a", "idx": [1, 2]}\n')
  assert list(read(path)) == [{"inputs_pretokenized": "a", "idx": [1, 2]}]


@pytest.mark.parametrize(
  ("line", "message"),
  [
    ("{", "line 2: not JSON"),
    ("[1]", r"line 2: expected an object, got \[1\]"),
    ('{"targets": "a"}', "line 2: `inputs` must be a text, got None"),
    ('{"inputs": 3}', "line 2: `inputs` must be a text, got 3"),
    ('{"inputs": "a", "targets": 1}', "line 2: `targets` must be a text"),
  ],
)
def test_lines_that_are_no_examples(line, message, tmp_path):
  path = tmp_path / "in.jsonl"
  path.write_text('{"inputs": "fine"}\n' + line)
  lines = read(path)
  assert next(lines) == {"inputs_pretokenized": "fine"}
  with pytest.raises(ValueError, match=message):
    next(lines)


def test_not_text(tmp_path):
  path = tmp_path / "in.txt"
  path.write_bytes(b"\xff\xfe")
  with pytest.raises(ValueError, match="not UTF-8"):
    list(read(path))
