"""PPT's tasks: declared from plain text, and real ones in their forms."""

import functools
import json
import lzma
import re

import pytest

from prompt_tuning.data import corpus, custom, lexicon, ppt, spec, templated
from prompt_tuning.data import vocabulary as vocabularies


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))
  monkeypatch.setattr(ppt, "_rows", dict(ppt._rows))


def text_of(tmp_path, content, name="a.txt", **more):
  path = tmp_path / name
  pack = lzma.compress if name.endswith(".xz") else bytes
  path.write_bytes(pack(content.encode()))
  return corpus.Text("own", {"train": str(path)}, **more)


BLOCKS = "\n\n\n".join(
  "\n".join(f"{i} of day {d} came. All went on." for i in range(5))
  for d in range(4)
)


def declare(text, form="sentence_pair", **changes):
  arguments = {"examples": {"train": 30}, **changes}
  return ppt.pretraining("own", form, text, **arguments)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.jsonl.xz"])
def test_rows_of_every_format(tmp_path, name):
  content = BLOCKS
  if ".jsonl" in name:
    rows = [{"text": block} for block in BLOCKS.split("\n\n\n")]
    content = "".join(json.dumps(row) + "\n" for row in rows)
  task = declare(text_of(tmp_path, content, name))
  assert task is spec.task("own")
  assert task.label_words == (
    "<extra_id_0> no",
    "<extra_id_0> maybe",
    "<extra_id_0> yes",
  )
  assert templated.label_words(task).classes == ppt.sentence_tasks.PAIR_CLASSES
  rows = ppt.rows_of("own_rows").of_split("train")
  assert len(rows) == 30
  texts = {text for row in rows for text in (row["text_a"], row["text_b"])}
  assert "All went on." in texts
  assert "0 of day 1 came." in texts


def test_long_sentences_lose_their_end(tmp_path):
  declare(text_of(tmp_path, BLOCKS), max_words=4)
  rows = ppt.rows_of("own_rows").of_split("train")
  cut = {f"{i} of day {d}" for i in range(5) for d in range(4)}
  assert {row["text_a"] for row in rows} <= {*cut, "All went on."}


def test_letters_are_pieces(tmp_path, published_vocabulary_file):
  """`A` behind no blank, in T5's vocabulary another piece than behind one."""
  text = text_of(tmp_path, BLOCKS)
  encode = vocabularies.load(published_vocabulary_file).encode
  task = declare(text, "multiple_choice")
  assert len(task.label_words) == 6
  sentinel = encode("<extra_id_0>")
  answers = [encode(target)[len(sentinel) :] for target in task.label_words]
  assert answers == [[188], [279], [254], [308], [427], [371]]
  unified = ppt.pretraining("all", "unified", text)
  assert len(unified.label_words) == 16
  plain = ppt.pretraining("b", "multiple_choice", text, target_format="plain")
  assert encode(plain.label_words[0]) == [71]


def test_a_labeller_of_one_s_own(tmp_path):
  text = text_of(tmp_path, BLOCKS)
  words = {"short": "yes", "long": "no"}

  def by_length(sentence):
    return "long" if len(sentence) > 15 else "short"

  task = declare(
    text,
    "single_sentence",
    labeller=by_length,
    label_words=words,
    examples={"train": 2},
  )
  assert task.label_words == ("<extra_id_0> yes", "<extra_id_0> no")
  rows = ppt.rows_of("own_rows").of_split("train")
  assert {(len(r["text_a"]) > 15, r["label"]) for r in rows} == {
    (True, 1),
    (False, 0),
  }
  named = "prompt_tuning.data.lexicon:label"
  content = ppt.pretraining("b", "single_sentence", text, labeller=named)
  default = ppt.pretraining("c", "single_sentence", text)
  described = content.content["base"]["content"]["labeller"]
  assert described == default.content["base"]["content"]["labeller"]
  assert described[0] == named
  assert content.label_words[0] == "<extra_id_0> terrible"
  with pytest.raises(ValueError, match="Expected module:function"):
    ppt.pretraining("d", "single_sentence", text, labeller="no.such:label")


class ByLength:
  def __init__(self, length, model=None):
    self.length, self.model = length, model

  def __call__(self, sentence):
    return "long" if len(sentence) > self.length else "short"

  label = __call__

  @classmethod
  def of(cls, sentence):
    return cls(3)(sentence)


class ByOther(ByLength):
  pass


def captures(length):
  return lambda sentence: ByLength(length)(sentence)


def by_length(length, sentence):
  return ByLength(length)(sentence)


def test_labellers_differ_by_what_they_hold():
  """Whatever Python calls them; else one's rows were read as another's."""
  labellers = [
    by_length,
    *[functools.partial(by_length, length) for length in (3, 4)],
    functools.partial(by_length, length=3),
    functools.partial(captures, 3),
    *[functools.partial(ByLength(3).label, k) for k in "ab"],
    *[captures(length) for length in (3, 4)],
    *[ByLength(length) for length in (3, 4)],
    *[ByLength(length).label for length in (3, 4)],
    *[kind(3, object()) for kind in (ByLength, ByOther)],
    *[kind.of for kind in (ByLength, ByOther)],
    *[{"sea": kind}.get for kind in ("long", "short")],
    *[len, str.upper, str.lower],
  ]
  described = [json.dumps(ppt._described(one)) for one in labellers]
  assert len(set(described)) == len(labellers)
  again = [ppt._described(ByLength(3, object())) for _ in range(2)]
  assert again[0] == again[1]  # no address of an object
  assert len(ppt._described(by_length)) == 2  # as before: caches stay
  itself = ByLength([])
  itself.length.append(itself.length)
  assert "builtins:list" in ppt._described(itself)[2]


def test_whatever_changes_the_rows_changes_the_cache(tmp_path):
  text = text_of(tmp_path, BLOCKS)
  task = declare(text)
  assert declare(text).identity() == task.identity()
  for changes in (
    {"seed": 1},
    {"examples": {"train": 31}},
    {"max_words": 5},
    {"shuffled": True},
    {"form": "unified"},
    {"text": text_of(tmp_path, BLOCKS + " More.", "b.txt")},
  ):
    with pytest.raises(ValueError, match=r"A different task .*'own"):
      declare(**{"text": text, **changes})


def test_shuffled_labels_are_those_of_other_rows(tmp_path):
  text = text_of(tmp_path, BLOCKS)
  declare(text)
  ppt.pretraining(
    "other", "sentence_pair", text, examples={"train": 30}, shuffled=True
  )
  right = ppt.rows_of("own_rows").of_split("train")
  wrong = ppt.rows_of("other_rows").of_split("train")
  assert [row["text_b"] for row in right] == [row["text_b"] for row in wrong]
  assert sorted(r["label"] for r in right) == sorted(r["label"] for r in wrong)
  assert right != wrong


@pytest.mark.parametrize(
  ("content", "changes", "message"),
  [
    ("", {}, r"a\.txt: the corpus is empty"),
    ("-- \n\n***\n", {}, r"a\.txt: the corpus has no sentence"),
    ("\n\nAh. Be. Do. Go. ", {}, r"a\.txt:3: the corpus has one document"),
    (
      "Ah. Be.\n\nDo. Go. So.",
      {"form": "multiple_choice"},
      r"a\.txt:1: .* 5 diff",
    ),
    (
      "Good. So.\n\n\nGlad. Sad.",
      {"form": "single_sentence", "labeller": str.upper},
      r"a\.txt:[14]: .* unknown class '(GOOD|SO|GLAD|SAD)\.'",
    ),
  ],
)
def test_bad_text(tmp_path, content, changes, message):
  declare(**{"text": text_of(tmp_path, content), **changes})
  with pytest.raises(ValueError, match=message):
    ppt.rows_of("own_rows").of_split("train")


def test_questions_with_answers_are_no_text(tmp_path):
  row = json.dumps({"inputs": "a?", "targets": "b"})
  declare(text_of(tmp_path, f"\n{row}\n", "a.jsonl"))
  with pytest.raises(
    ValueError, match=r"a\.jsonl:2: the line has a question with"
  ):
    ppt.rows_of("own_rows").of_split("train")


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"form": "sentence_pairs"}, "Did you mean 'sentence_pair'"),
    ({"examples": {"test": 3}}, "corpus's splits: train"),
    ({"examples": {"train": 0}}, "numbers from 1"),
    ({"form": "multiple_choice", "options": 1}, "expected 2 to 16"),
    ({"form": "multiple_choice", "options": 17}, "expected 2 to 16"),
    ({"label_words": {"yes": "a"}}, "expected the classes elsewhere, same_doc"),
    ({"name": "a b"}, "letters, digits"),
  ],
)
def test_bad_arguments(tmp_path, changes, message):
  arguments = {"name": "own", "form": "sentence_pair", **changes}
  with pytest.raises(ValueError, match=message):
    ppt.pretraining(text=text_of(tmp_path, BLOCKS), **arguments)


@pytest.fixture
def source(tmp_path):
  path = tmp_path / "rows.jsonl"
  row = {"premise": "It rains.", "hypothesis": "It is wet.", "gold": "yes"}
  row |= {"one": "Sun.", "two": "Rain.", "both": ["Sun.", "Rain."]}
  path.write_text(json.dumps(row))
  return custom.declare(
    "own_rows",
    {"train": str(path)},
    template="{premise}",
    target_column="gold",
    label_words=("no", "yes"),
  ).name


def in_form(source, form, **changes):
  fields = {"text_a": "premise", "text_b": "hypothesis"}
  return ppt.in_form("real", source, form, **{"fields": fields, **changes})


def test_a_pair_in_its_form(source):
  words = {"yes": "yes", "no": ["no", "maybe"]}
  task = in_form(source, "sentence_pair", label_words=words)
  assert task.label_words == ("<extra_id_0> no", "<extra_id_0> yes")
  assert task.content["template"] == ppt.TEMPLATES["sentence_pair"]


def test_any_task_of_classes_in_the_unified_form(source, vocabulary_file):
  task = in_form(source, "unified", options={"no": 'a "no"', "yes": "{yes}"})
  assert task.label_words == ("<extra_id_0>A", "<extra_id_0>B")
  written = rendered(task, vocabulary_file)
  assert written == (
    'It rains. It is wet. ? A. a "no" B. {yes} ? The correct one is '
    "<extra_id_0>"
  )
  single = ppt.in_form("one", source, "unified", {"text_a": "premise"})
  assert rendered(single, vocabulary_file).startswith("It rains. ? A. no B.")


@pytest.mark.parametrize("options", [["one", "two"], ["both"]])
def test_options_of_the_row(source, options, vocabulary_file):
  task = in_form(
    source,
    "multiple_choice",
    fields={"text_a": "premise"},
    options=options,
  )
  written = rendered(task, vocabulary_file)
  assert written == (
    "It rains. ? A. Sun. B. Rain. ? The correct one is <extra_id_0>"
  )


def test_a_hard_pattern_of_one_s_own(source, vocabulary_file):
  pattern = 'Is it so? {"options"} {"mask"} {"placeholder": "text_a"}'
  task = in_form(
    source, "unified", template=pattern, fields={"text_a": "hypothesis"}
  )
  written = rendered(task, vocabulary_file)
  assert written == "Is it so? A. no B. yes <extra_id_0> It is wet."


def rendered(task, vocabulary_file):
  renderer = templated.renderer(task, vocabularies.load(vocabulary_file))
  row = custom.first_row(spec.task("own_rows"), "train").values
  values = {
    name: row[templated.field_of_row(task, name)]
    for name in renderer.template.fields
  }
  return renderer.render(values).text


@pytest.mark.parametrize(
  ("form", "changes", "message"),
  [
    ("sentence_pair", {}, "needs label_words"),
    ("single_sentence", {"label_words": {}}, "needs label_words"),
    ("multiple_choice", {}, "give options"),
    ("multiple_choice", {"options": {"no": "one"}}, "list of the row's fields"),
    ("multiple_choice", {"options": ["a", "b", "c"]}, "each of 2 classes"),
    ("unified", {"label_words": {"no": "A"}}, "are letters"),
    ("unified", {"template": '{"mask"}'}, "where they stand"),
    ("unified", {"options": ["no", "yes"]}, "class -> how it is called"),
    ("unified", {"options": {"no": "a"}}, "expected the classes no, yes"),
    ("choice", {}, re.escape("unknown form 'choice'")),
  ],
)
def test_bad_forms(source, form, changes, message):
  with pytest.raises(ValueError, match=message):
    in_form(source, form, **changes)


def test_the_classes_of_the_lexicon_are_words_of_the_form(tmp_path):
  task = declare(text_of(tmp_path, BLOCKS), "single_sentence")
  assert templated.label_words(task).classes == lexicon.CLASSES
