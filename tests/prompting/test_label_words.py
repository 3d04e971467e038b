"""Label words: files as they are, pieces, and what a scorer loses."""

import json
import re

import numpy as np
import pytest

from prompt_tuning.data import vocabulary as vocabularies
from prompt_tuning.prompting import label_words
from prompt_tuning.prompting.label_words import LabelWords, WordPieces

# Pieces of an invented vocabulary; a mark stands for the blank before a word.
PIECES = ("_ball", "_goal", "_law", "_the", "_", "ball", "s", "A", "_A", "<m>")
KNOWN = {piece: number for number, piece in enumerate(PIECES, 10)}


def encode(text):
  """Cut a text into the longest pieces, as T5's vocabulary does."""
  text = text.replace("<extra_id_0>", "<m>")
  text = text if text.startswith("<m>") else f"_{text.replace(' ', '_')}"
  ids = []
  while text:
    piece = next(
      (p for p in sorted(KNOWN, key=len)[::-1] if text.startswith(p)), text[0]
    )
    ids.append(KNOWN.get(piece, 2))
    text = text[len(piece) :]
  return ids


@pytest.fixture
def write(tmp_path):
  def write(name, text):
    path = tmp_path / name
    path.write_text(text)
    return str(path)

  return write


def test_text_has_a_class_per_line(write):
  path = write("words.txt", "law, state ,law\nball,goal\n\n")
  words = label_words.read(path)
  assert words == LabelWords.of({"0": ["law", "state"], "1": ["ball", "goal"]})
  assert words.weights == ((1.0, 1.0), (1.0, 1.0))
  named = label_words.read(path, classes=("World", "Sports"))
  assert named.classes == ("World", "Sports")
  assert named.place(1) == f"{path}:2: class 'Sports'"


def test_an_empty_line_divides_lists(write):
  path = write("words.csv", "a\nb\n\nc\nd\n")
  assert label_words.read(path).words == (("a",), ("b",))
  assert label_words.read(path, choice=1).words == (("c",), ("d",))


def test_braces_hold_a_text(write):
  path = write("words.txt", ' {"text": "yes, it is"} \nno\n')
  assert label_words.read(path).words == (("yes, it is",), ("no",))


def test_json_has_names_words_and_weights(write):
  content = {"World": "law", "Sports": {"ball": 2, "goal": 0.5}}
  path = write("words.json", json.dumps(content, indent=1))
  words = label_words.read(path, classes=("Sports", "World"))
  assert words.classes == ("Sports", "World")
  assert words.words == (("ball", "goal"), ("law",))
  assert words.weights == ((2, 0.5), (1.0,))
  assert words.places == (f"{path}:3", f"{path}:2")


@pytest.mark.parametrize("name", ["words.json", "words.jsonl"])
def test_json_holds_several_lists(write, name):
  lists = [{"a": ["x"], "b": ["y"]}, {"a": ["z"], "b": ["u"]}]
  path = write(name, json.dumps(lists, indent=1))
  assert label_words.read(path, choice=1).words == (("z",), ("u",))


def test_json_lines_are_lists(write):
  path = write("w.jsonl", '{"a": "x", "b": "y"}\n{"a": "z", "b": "u"}\n')
  words = label_words.read(path, choice=1)
  assert words.words == (("z",), ("u",))
  assert words.places == (f"{path}:2", f"{path}:2")


def test_text_that_looks_like_code_stays_text(write):
  code = "__import__('os').system('x')"
  path = write("words.json", json.dumps({"a": code, "b": "lambda x: x"}))
  assert label_words.read(path).words == ((code,), ("lambda x: x",))


BAD = {
  "no words": ("w.json", '{"a": "x",\n"b": []}', ":2: class 'b' has no words"),
  "an empty word": ("w.txt", "x\ny,,z", ":2: class '1': an empty word among"),
  "one class": ("w.txt", "Yes No", ":1: 1 class; expected two or more"),
  "nothing": ("w.txt", "\n\n", ": only empty lines; expected a line"),
  "of a row": ("w.txt", 'x\n{"meta": "answer"}', ":2: .* another word in ever"),
  "a number": ("w.json", '{"a": "x", "b": [1]}', ":1: expected a word, got 1"),
  "a weight": ("w.json", '{"a": "x", "b": {"y": -1}}', ":1: .* weight -1;"),
  "weights of 0": ("w.json", '{"a": "x", "b": {"y": 0}}', ":1: .* are 0"),
  "no object": ("w.json", '"a"', ":1: expected a JSON object of classes"),
  "an entry": ("w.json", '[{"a": "x", "b": "y"}, 3]', "entry 1: expected a"),
  "twice": ("w.json", '{"a": "x",\n"a": "y"}', ":2: class 'a' occurs twice"),
  "no JSON": ("w.json", '{"a": "x",\n y}', ":2: not JSON"),
  "an ending": ("w.yaml", "a: x", "expected label words in a file ending in"),
}


@pytest.mark.parametrize(("name", "text", "error"), BAD.values(), ids=BAD)
def test_bad_files_say_where(write, name, text, error):
  path = write(name, text)
  with pytest.raises(ValueError, match=re.escape(path)) as info:
    label_words.read(path)
  assert re.search(error, str(info.value))


def test_classes_must_be_those_of_the_task(write):
  path = write("w.json", '{"a": "x",\n"bb": "y"}')
  with pytest.raises(ValueError, match=r":2: unknown class 'bb'. Did you mean"):
    label_words.read(path, classes=("a", "b"))
  with pytest.raises(ValueError, match="no words of class 'c'"):
    label_words.read(path, classes=("a", "bb", "c"))
  path = write("w.txt", "x\ny")
  with pytest.raises(ValueError, match=r":2: 2 lines .* one for each of 3"):
    label_words.read(path, classes=("a", "b", "c"))
  with pytest.raises(ValueError, match=r"has 1 lists .* no list 1"):
    label_words.read(path, choice=1)


def test_pieces_are_padded_and_weighed():
  words = LabelWords.of({"World": "law", "Sports": {"ball": 2, "goals": 0.5}})
  found = WordPieces.of(words, encode)
  law, ball, goal, s = (KNOWN[p] for p in ("_law", "_ball", "_goal", "s"))
  expected = [[[law, 0], [0, 0]], [[ball, 0], [goal, s]]]
  np.testing.assert_array_equal(found.pieces, np.array(expected, np.int32))
  assert found.pieces.dtype == np.int32
  np.testing.assert_array_equal(
    found.weights, np.array([[1, 0], [2, 0.5]], np.float32)
  )
  np.testing.assert_array_equal(found.lengths, [[1, 0], [1, 2]])


def test_a_word_may_follow_no_blank():
  words = LabelWords.of({"a": "<!>A", "b": "A"})
  pieces = WordPieces.of(words, encode).pieces
  np.testing.assert_array_equal(pieces, [[[KNOWN["A"]]], [[KNOWN["_A"]]]])


def test_a_survey_counts_what_scorers_lose():
  words = LabelWords.of(
    {"World": ["law", "state", "the ball"], "Sports": ["ball", "balls", "law"]}
  )
  survey = label_words.survey(words, encode)
  assert survey.counts() == {
    "classes": 2,
    "words": 6,
    "one piece": 3,
    "several pieces": 3,
    "same first piece": 2,
    "unknown": 1,
    "same ids": 0,
    "in two classes": 1,
  }
  assert [str(w) for w in survey.several] == [
    "state (World)",
    "the ball (World)",
    "balls (Sports)",
  ]
  assert [str(w) for w in survey.unknown] == ["state (World)"]
  text = "\n".join(survey.lines())
  assert "6 label words of 2 classes" in text
  assert "3 have several pieces" in text
  assert "balls (Sports)" in text


def test_words_that_the_vocabulary_lacks_are_refused_or_dropped(write):
  path = write("w.txt", "law\nball,état\n")
  words = label_words.read(path)
  with pytest.raises(ValueError, match=rf"{re.escape(path)}:2: .*'état'"):
    WordPieces.of(words, encode)
  assert words.without_unknown(encode).words == (("law",), ("ball",))


def test_words_of_the_same_ids_are_refused(write):
  same = lambda text: [7] if text in ("law", "LAW") else [8]  # noqa: E731
  words = label_words.read(write("w.txt", "law\nLAW\n"))
  with pytest.raises(ValueError, match=r":2: .*'LAW' has the ids \[7\], and"):
    WordPieces.of(words, same)
  groups = label_words.survey(words, same).same
  assert [[w.text for w in group] for group in groups] == [["law", "LAW"]]
  alike = LabelWords.of({"a": ["law", "ball"], "b": ["ball", "law"]})
  with pytest.raises(ValueError, match="the same words as Label class 'a'"):
    WordPieces.of(alike, encode)


def test_common_words_are_dropped_but_for_names():
  words = LabelWords.of(
    {"a": ["law", "ball", "goal"], "b": ["ball", "law"], "c": ["A", "goal"]}
  )
  assert words.without_common().words == (("law",), ("ball",), ("A",))


@pytest.mark.parametrize(
  ("weights", "kept"),
  [
    ({"law": 0, "ball": 1}, "ball"),
    ({"law": 0.1, "ball": 1}, "ball"),
    ({"law": 1, "ball": 1}, "law"),
    ({"law": 0.5, "ball": 1, "goal": 1}, "ball"),
  ],
)
def test_of_common_words_the_best_stays(weights, kept):
  other = {"goal": 2, "law": 1, "ball": 1}
  words = LabelWords.of({"a": weights, "b": other})
  assert words.without_common().words[0] == (kept,)


def test_a_class_without_single_pieces_keeps_its_best_word(write):
  text = {
    "a": ["goals", "law"],
    "b": {"état": 3, "goals": 1, "balls": 2},
    "c": {"the ball": 1, "ball": 0},
  }
  words = label_words.read(write("w.json", json.dumps(text)))
  found = label_words.scored(words, encode, single=True)
  assert found.words == ((False, True), (False, False, True), (True, True))
  assert [*map(str, found.saved)] == ["balls (b)", "the ball (c)"]
  lengths = WordPieces.of(words, encode, keep=found.words).lengths
  np.testing.assert_array_equal(lengths, [[0, 1, 0], [0, 0, 2], [2, 1, 0]])
  found = label_words.scored(words, encode, single=False)
  assert found.words == ((True, True), (False, True, True), (True, True))
  assert not found.saved


def test_a_class_of_which_no_word_can_be_scored_is_an_error(write):
  path = write("w.txt", "law\nétat,à\n")
  with pytest.raises(
    ValueError, match=rf"{re.escape(path)}:2: class '1': none of its words"
  ):
    label_words.scored(label_words.read(path), encode, single=False)


def test_letters_of_t5_are_pieces_without_a_blank(shared_data):
  """As PPT's choices are: `A` is 188 and not 71."""
  path = shared_data / "t5_vocab" / "sentencepiece.model"
  vocabulary = vocabularies.Vocabulary(str(path))
  letters = "ABCDEF"
  for mark, expected in {
    "<!>": [188, 279, 254, 308, 427, 371],
    "": [71, 272, 205, 309, 262, 377],
  }.items():
    words = LabelWords.of({letter: mark + letter for letter in letters})
    pieces = WordPieces.of(words, vocabulary.encode).pieces
    assert pieces[:, 0, 0].tolist() == expected
    assert pieces.shape == (6, 1, 1)
