"""Rules: files of them, what is refused, and their pieces."""

import re

import numpy as np
import pytest

from prompt_tuning.data import vocabulary
from prompt_tuning.prompting import rules
from prompt_tuning.prompting.rules import RulePieces, Rules

WORDS = {
  "born": ["man", "was", "city"],
  "made": ["town", "was", "man"],
  "none": ["man", "is", "man"],
}


@pytest.fixture(scope="module")
def encode():
  return vocabulary.load("embedded:ladder_1").encode


def write(tmp_path, text, name="rules.tsv"):
  path = tmp_path / name
  path.write_text(text)
  return str(path)


LINES = "".join("\t".join([name, *w]) + "\n" for name, w in WORDS.items())
LAYOUTS = {
  "rules.tsv": LINES,
  "rules.txt": "\n".join(f"0\t{line}" for line in LINES.splitlines()),
  "rules.json": str(WORDS).replace("'", '"'),
}


@pytest.mark.parametrize(("name", "text"), LAYOUTS.items(), ids=LAYOUTS)
def test_layouts(tmp_path, name, text):
  """One's own, PTR's with a number in front, OpenPrompt's JSON."""
  path = write(tmp_path, text, name)
  found = rules.read(path)
  assert found == Rules.of(WORDS)
  line = 1 if name.endswith("json") else 2
  assert found.place(1) == f"{path}:{line}: rule of 'made'"
  assert found.in_order(["none", "born", "made"]).words[0] == (
    ("man", "is", "man")
  )


def test_names_may_be_numbers(tmp_path):
  """No two classes have one name, so that these are no templates' numbers."""
  found = rules.read(write(tmp_path, "0\tbad\tday\n1\tgood\tday\n"))
  assert found.classes == ("0", "1")
  assert found.words == (("bad", "day"), ("good", "day"))


def test_nothing_is_evaluated(tmp_path):
  """Words are text, whatever they look like."""
  code = "__import__('os').abort()"
  text = f"lambda x: x\t{code}\ta\n<extra_id_0>\tb\t{{'mask'}}\n"
  found = rules.read(write(tmp_path, text))
  assert found.classes == ("lambda x: x", "<extra_id_0>")
  assert found.words[0] == (code, "a")


def test_rules_of_head_and_tail_exchanged(tmp_path):
  """As OpenPrompt's SemEval: the last cell names the class it reverses."""
  text = "0\tpart\tpiece\twhole\n0\tcause\tfire\tsmoke\n"
  text += "2\tpart back\tpiece\twhole\tpart\n"
  read = rules.read(write(tmp_path, text))
  assert read.reverses == (None, None, "part")
  found = read.exchanged((1, 0))
  assert found.words == (
    ("piece", "whole"),
    ("fire", "smoke"),
    ("whole", "piece"),
  )
  assert found.reverses == (None,) * 3
  named = read.exchanged((1, 0), ["cause"])
  assert named.words[1] == ("smoke", "fire")
  with pytest.raises(ValueError, match=r"tsv:3: rule of 'part back' is r"):
    read.exchanged(())
  with pytest.raises(ValueError, match=r"reversed_order \(0, 0\): expected"):
    read.exchanged((0, 0))
  with pytest.raises(ValueError, match=r"no rule of 'caus'. Did you mean"):
    read.exchanged((1, 0), ["caus"])
  with pytest.raises(ValueError, match="no rule is reversed"):
    Rules.of(WORDS).exchanged((2, 1, 0))


def test_substitutes():
  found = Rules.of(WORDS).with_substitutes({"man": "child"})
  assert found.words[2] == ("child", "is", "child")
  with pytest.raises(ValueError, match="no rule has the word 'cite'"):
    Rules.of(WORDS).with_substitutes({"cite": "town"})


BAD_FILES = {
  "a class twice": ("a\tx\na\ty\n", ":2: class 'a' occurs twice"),
  "no words": ("a\n b\tx\n", ":1: 1 cells; expected a class and its words"),
  "an empty word": ("a\tx\t\nb\tx\ty\n", ":1: rule of 'a': words 'x', ''"),
  "a sentinel": (
    "a\tx\nb\t<extra_id_0> x\n",
    ":2: rule of 'b': words '<extra_id_0> x' contain a sentinel",
  ),
  "one rule": ("a\tx\n", ":1: 1 rule; expected one for each"),
  "numbers of templates alone": ("0\ta\n0\tb\n", ":1: 2 cells; expected"),
}


@pytest.mark.parametrize(("text", "error"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files(tmp_path, text, error):
  path = write(tmp_path, text)
  with pytest.raises(ValueError, match=re.escape(path + error)):
    rules.read(path)


def test_bad_json(tmp_path):
  path = write(tmp_path, '{"a": "x",\n"b": ["y"]}', "rules.json")
  with pytest.raises(ValueError, match=r"json:1: the rule of class 'a': e"):
    rules.read(path)
  path = write(tmp_path, '[{"a": ["x"]}, {"b": ["y"]}]', "rules.json")
  with pytest.raises(ValueError, match="2 lists of rules; expected one"):
    rules.read(path)
  with pytest.raises(ValueError, match="expected rules in a file ending in"):
    rules.read("rules.csv")


def test_files_of_tacred_call_no_relation_by_two_names(tmp_path):
  path = write(tmp_path, "0\tNA\tentity\n0\tper:age\tage\n", "rules.txt")
  assert rules.read(path).classes == ("NA", "per:age")
  read = rules.read(path, ["per:age", "no_relation"])
  assert read.classes == ("per:age", "no_relation")
  assert read.words == (("age",), ("entity",))
  assert rules.read(path, ["per:age", "NA"]).classes == ("per:age", "NA")
  path = write(tmp_path, "NA\tx\nno_relation\ty\n", "rules.txt")
  with pytest.raises(ValueError, match=r"txt:2: .*'no_relation' occurs"):
    rules.read(path, ["no_relation", "other"])


def test_rules_of_other_classes_or_masks(tmp_path):
  read = rules.read(write(tmp_path, "a\tx\ty\nbc\tx\tz\tx\n"))
  with pytest.raises(ValueError, match=r"tsv:2: rule of 'bc': the data has no"):
    read.in_order(["a", "bb"])
  with pytest.raises(ValueError, match=r"rules.tsv: no rule for class 'c'"):
    read.in_order(["a", "bc", "c"])
  with pytest.raises(
    ValueError, match=r"tsv:2: rule of 'bc': 3 words .x, z, x., but T has 2"
  ):
    read.insist_on(2, "T")


def test_pieces(encode):
  """Whole targets as words, and what stands at each mask alone."""
  words = {"a": ["man", "was"], "b": ["woman", "unhappily"], "c": ["man", "is"]}
  sentinels = ["<extra_id_0>", "<extra_id_1>"]
  made = RulePieces.of_rules(Rules.of(words), sentinels, encode)
  for number, (first, second) in enumerate(words.values()):
    text = f"<extra_id_0> {first} <extra_id_1> {second}"
    target = [*made.start, *made.pieces[number, 0]]
    target = target[: 1 + made.lengths[number, 0]]
    assert target == list(encode(text))
  assert made.sentinels == tuple(encode(text)[0] for text in sentinels)
  lone = [encode(word) for word in ("man", "was", "woman", "is")]
  (man,), (was,), (woman,), (is_,) = lone
  assert len(encode("unhappily")) > 1
  np.testing.assert_array_equal(
    made.at_masks, [[man, was], [woman, rules.SEVERAL], [man, is_]]
  )
  assert [str(word) for word in made.several] == ["unhappily (b)"]
  found = rules.survey(Rules.of(words), encode)
  assert found.words == (2, 3)
  assert found.counts()["several pieces"] == 1
  assert "2, 3 different words" in found.lines()[0]
  assert "unhappily (b)" in found.lines()[1]


def test_what_nothing_can_tell_apart(encode):
  same = Rules.of({"a": ["man", "was"], "b": ["man", "was"]})
  with pytest.raises(ValueError, match="rule of 'b' has the same words as The"):
    RulePieces.of_rules(same, ["<extra_id_0>", "<extra_id_1>"], encode)
  lacking = Rules.of({"a": ["man", "\u6f22"], "b": ["man", "was"]})
  with pytest.raises(ValueError, match="lacks characters of '\u6f22'"):
    rules.survey(lacking, encode)
