"""Readers of relations: pieces, marks, and bad spans."""

import json
import types

import pytest
import tensorflow_datasets as tfds

from prompt_tuning.data import spec
from prompt_tuning.data.catalog.relation import CLASS_NAMES
from prompt_tuning.data.prepare import prepare, relations

TACRED = CLASS_NAMES["tacred"]


def builder(names):
  """Return what layouts read of a TFDS builder."""
  label = types.SimpleNamespace(names=list(names))
  info = types.SimpleNamespace(features={"label": label})
  return types.SimpleNamespace(info=info)


def check(layout, path, dataset):
  return list(layout.check(path, "train", builder(CLASS_NAMES[dataset])))


def spans(words, head, tail, relation="Other"):
  words = words.split()
  return {
    "token": words,
    "h": {"name": " ".join(words[slice(*head)]), "pos": list(head)},
    "t": {"name": " ".join(words[slice(*tail)]), "pos": list(tail)},
    "relation": relation,
  }


def write(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("\n".join(map(json.dumps, rows)))
  return path


WORDS = "a [E1] baker sold [/E1] bread at the mill"


@pytest.mark.parametrize(
  ("head", "tail", "pieces"),
  [
    (
      (2, 3),
      (5, 6),
      [
        *("a [E1]", "[E1] baker [/E1]", "sold [/E1]"),
        *("[E2] bread [/E2]", "at the mill"),
      ],
    ),
    (
      (7, 9),
      (0, 1),
      [
        *("", "[E2] a [/E2]", "[E1] baker sold [/E1] bread at"),
        *("[E1] the mill [/E1]", ""),
      ],
    ),
    # Side by side, and one inside the other.
    (
      (2, 3),
      (3, 4),
      [
        *("a [E1]", "[E1] baker [/E1]", "", "[E2] sold [/E2]"),
        "[/E1] bread at the mill",
      ],
    ),
    (
      (5, 6),
      (2, 6),
      [
        "a [E1]",
        "[E2] baker sold [/E1] [E1] bread [/E1] [/E2]",
        *("", "", "at the mill"),
      ],
    ),
  ],
)
def test_pieces_of_a_marked_sentence(tmp_path, head, tail, pieces):
  path = write(tmp_path / "train.jsonl", [spans(WORDS, head, tail)])
  (row,) = check(relations.TokenSpans(), path, "semeval2010_task8")
  names = ("before", "first", "between", "second", "after")
  assert [row.values[name] for name in names] == pieces
  assert row.values["marked"] == " ".join(filter(None, pieces))
  # Markup that stands in the text stays there.
  assert row.values["text"] == WORDS
  assert row.values["subject"] == " ".join(WORDS.split()[slice(*head)])
  assert row.values["object"] == " ".join(WORDS.split()[slice(*tail)])


BAD = [
  (("h", "pos"), [2, 10], r":2: h.pos: tokens 2 up to 10 are not in the sente"),
  (("t", "pos"), [5, 5], r":2: t.pos: tokens 5 up to 5 are not in the sente"),
  (("t", "pos"), [-1, 2], r":2: t.pos: tokens -1 up to 2 are not in the sen"),
  (("h", "pos"), [True, 2], r":2: h.pos: tokens True up to 2 are not in"),
  (("h", "pos"), [2], r":2: h.pos: expected two numbers, got \[2\]"),
  (
    ("h", "name"),
    "miller",
    r":2: h.name is 'miller', but at .* has 'baker'",
  ),
  (("relation",), "Others", r":2: unknown label 'Others'"),
  (("token",), ["a", 3], r":2: token: expected texts"),
]


@pytest.mark.parametrize(("where", "value", "message"), BAD)
def test_a_bad_span_is_an_error_with_file_and_line(
  tmp_path, where, value, message
):
  rows = [spans(WORDS, (2, 3), (5, 6)) for _ in range(2)]
  *way, last = where
  place = rows[1]
  for key in way:
    place = place[key]
  place[last] = value
  path = write(tmp_path / "train.jsonl", rows)
  with pytest.raises(ValueError, match="train.jsonl" + message):
    check(relations.TokenSpans(), path, "semeval2010_task8")


def tacred(**changes):
  return {
    "id": "e1",
    "token": WORDS.split(),
    "subj_start": 2,
    "subj_end": 2,
    "obj_start": 7,
    "obj_end": 8,
    "subj_type": "PERSON",
    "obj_type": "LOCATION",
    "relation": "per:employee_of",
    **changes,
  }


@pytest.mark.parametrize("name", ["no_relation", "NA"])
def test_tacreds_ends_are_inclusive_and_no_relation_has_two_names(
  tmp_path, name
):
  path = tmp_path / "train.json"
  path.write_text(json.dumps([tacred(), tacred(id="e2", relation=name)]))
  first, second = check(relations.Tacred(), path, "tacred")
  assert first.values["object"] == "the mill"
  assert first.values["object_type"] == "LOCATION"
  assert first.values["second"] == "[E2] the mill [/E2]"
  assert (first.key, first.values["label"]) == ("e1", "per:employee_of")
  assert second.values["label"] == "no_relation"


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"obj_end": 9}, "obj_start, obj_end: tokens 7 up to 10 are not in"),
    ({"subj_start": 3}, "subj_start, subj_end: tokens 3 up to 3 are not in"),
    ({"relation": "per:job"}, "unknown label 'per:job'"),
    ({"subj_type": None}, "'subj_type': expected a text"),
  ],
)
def test_a_bad_row_of_tacred(tmp_path, change, message):
  path = tmp_path / "train.json"
  path.write_text(json.dumps([tacred(), tacred(**change)]))
  with pytest.raises(ValueError, match=rf"train.json: \[1\]: .*{message}"):
    check(relations.Tacred(), path, "tacred")


OFFICIAL = """1\t"The <e1>baker</e1>'s <e2>bread</e2>."\r
Product-Producer(e2,e1)\r
Comment: <e1> sells.\r
\r
2\t"A <e1>mill</e1> by a <e2>lake</e2>."
Other

"""


def test_semevals_own_text(tmp_path):
  path = tmp_path / "TRAIN_FILE.TXT"
  path.write_text(OFFICIAL, newline="")
  first, second = check(relations.SemEval(), path, "semeval2010_task8")
  assert first.key == 1
  assert first.values["text"] == "The baker's bread."
  assert first.values["marked"] == "The [E1] baker [/E1] 's [E2] bread [/E2] ."
  assert (first.values["subject"], first.values["object"]) == ("baker", "bread")
  assert first.values["label"] == "Product-Producer(e2,e1)"
  assert (second.key, second.values["label"]) == (2, "Other")


@pytest.mark.parametrize(
  ("old", "new", "message"),
  [
    ("<e2>lake</e2>", "lake", r":5: expected a number, a tab, a sentence"),
    ("Other\n\n", "", r":5: expected .* its relation in the next line"),
    ("Other", "Others", r":6: unknown label 'Others'"),
  ],
)
def test_a_bad_line_of_semevals_own_text(tmp_path, old, new, message):
  path = tmp_path / "TRAIN_FILE.TXT"
  path.write_text(OFFICIAL.replace(old, new), newline="")
  with pytest.raises(ValueError, match="TRAIN_FILE.TXT" + message):
    check(relations.SemEval(), path, "semeval2010_task8")


DIALOGUE = [
  ["Speaker 1: Hello.", "Speaker 2: Mira bakes.", "Speaker 1: You two wed?"],
  [
    {
      "x": "Speaker 1",
      "y": "Mira",
      "x_type": "PER",
      "y_type": "PER",
      "r": ["per:spouse", "per:friends"],
      "t": ["wed", ""],
    },
    {
      "x": "Speaker 2",
      "y": "Orn",  # whom nobody names
      "x_type": "PER",
      "y_type": "GPE",
      "r": ["unanswerable"],
      "t": [""],
    },
    {
      "x": "Speaker 1",
      "y": "Speaker 2",
      "x_type": "PER",
      "y_type": "PER",
      "r": ["per:client"],
      "t": ["Bakes"],
    },
  ],
]


def test_what_can_be_judged_after_every_turn(tmp_path):
  path = tmp_path / "dev.json"
  path.write_text(json.dumps([DIALOGUE]))
  layout = relations.Dialogues(every_turn=True)
  rows = check(layout, path, "dialogre_conversational")
  judged = [(r.values["evaluable"], r.values["arguments_seen"]) for r in rows]
  assert judged == [
    *(([], 0), ([], 1), (["per:spouse", "per:friends"], 1)),
    *(([], 0), ([], 0), ([], 1)),
    *(([], 0), (["per:client"], 1), (["per:client"], 1)),
  ]
  assert rows[1].values["text"] == "Speaker 1: Hello. Speaker 2: Mira bakes."
  whole = check(relations.Dialogues(), path, "dialogre")
  assert [row.values for row in whole] == [rows[i].values for i in (2, 5, 8)]
  assert whole[0].values["label"] == "per:spouse"


def test_a_bad_pair_of_a_dialogue(tmp_path):
  path = tmp_path / "dev.json"
  turns, (pair, *_) = DIALOGUE
  path.write_text(json.dumps([[turns, [pair, {**pair, "t": []}]]]))
  with pytest.raises(ValueError, match=r"\[0\]\[1\]\[1\]: 2 relations"):
    check(relations.Dialogues(), path, "dialogre")
  path.write_text(json.dumps([turns]))
  with pytest.raises(ValueError, match=r"\[0\]: expected the turns and"):
    check(relations.Dialogues(), path, "dialogre")


def test_prepared_rows_are_those_of_the_files(tmp_path):
  source, out = tmp_path / "files", tmp_path / "out"
  row = spans(WORDS, (2, 3), (5, 6), "Cause-Effect(e1,e2)")
  write(source / "semeval2010_task8/train.jsonl", [row])
  (source / "Re-TACRED").mkdir()
  (source / "Re-TACRED/test.json").write_text(json.dumps([tacred()]))
  (source / "dialogre").mkdir()
  (source / "dialogre/dev.json").write_text(json.dumps([DIALOGUE]))
  found = {item.source: item.rows for item in prepare([source], out)}
  assert found == {
    "semeval2010_task8:1.0.0": {"train": 1},
    "retacred:1.0.0": {"test": 1},
    "dialogre:1.0.0": {"validation": 3},
    "dialogre_conversational:1.0.0": {"validation": 9},
  }
  for name, split in (("semeval2010_task8", "train"), ("retacred", "test")):
    task = spec.task(f"{name}_v100")
    data = tfds.load(task.source, split=split, data_dir=str(out))
    (stored,) = data.as_numpy_iterator()
    label = task.label_words[stored["label"]]
    assert label in ("Cause-Effect(e1,e2)", "per:employee_of")
    assert stored["first"] == b"[E1] baker [/E1]"
