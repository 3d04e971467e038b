"""A user's own task: texts, labels, metrics, and every kind of bad input."""

import json
import re

import pytest

from prompt_tuning.data import custom, spec

NLI = [
  {"premise": "It rains.", "hypothesis": "It is wet.", "gold": "e", "id": "x"},
  {"premise": "It snows.", "hypothesis": "It is hot.", "gold": "c", "id": "y"},
]
TEMPLATE = "premise: {premise} hypothesis: {hypothesis}"
WORDS = {"e": "yes", "c": "no", "n": "maybe"}


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))


@pytest.fixture
def jsonl(tmp_path):
  """A function: rows, or raw lines -> the path of a new JSONL file."""
  count = iter(range(100))

  def write(rows, name=None):
    lines = [r if isinstance(r, str) else json.dumps(r) for r in rows]
    path = tmp_path / (name or f"file{next(count)}.jsonl")
    path.write_text("\n".join(lines))
    return str(path)

  return write


def declare(jsonl, rows=NLI, name="my_nli", **changes):
  arguments = {
    "template": TEMPLATE,
    "target_column": "gold",
    "label_words": WORDS,
    "files": {"train": jsonl(rows)},
    **changes,
  }
  return custom.declare(name, **arguments)


def test_rows_are_rendered(jsonl):
  task = declare(jsonl, id_column="id")
  assert list(custom.rows(task, "train")) == [
    {
      "inputs": "premise: It rains. hypothesis: It is wet.",
      "targets": "yes",
      "label": 0,
      "answers": ["yes"],
      "idx": "x",
    },
    {
      "inputs": "premise: It snows. hypothesis: It is hot.",
      "targets": "no",
      "label": 1,
      "answers": ["no"],
      "idx": "y",
    },
  ]


def test_an_unknown_split_names_the_nearest(jsonl):
  with pytest.raises(ValueError, match="Did you mean 'validation'"):
    declare(jsonl, files={"train": jsonl(NLI), "valid": jsonl(NLI)})


def test_a_long_csv_cell_is_read(tmp_path):
  path = tmp_path / "long.csv"
  path.write_text(f'text,gold\n"{"word " * 40_000}",e\n')
  task = custom.declare(
    "long_cell",
    {"train": str(path)},
    template="{text}",
    target_column="gold",
    label_words=WORDS,
  )
  (row,) = custom.rows(task, "train")
  assert len(row["inputs"]) > 150_000


def test_the_spec_is_registered_and_evaluates(jsonl):
  task = declare(jsonl, metrics=("accuracy", "mean_f1"))
  assert spec.get("my_nli") is task
  assert spec.task("my_nli_k1_seed0").kshot.base == "my_nli"
  examples = [
    {spec.TARGETS: row["targets"], **row} for row in custom.rows(task, "train")
  ]
  got = task.evaluate(["yes", "perhaps"], examples)
  assert got["accuracy"] == 50.0
  assert got["mean_3class_f1"] == pytest.approx(100 / 3)
  assert got["legal_label_rate"] == 50.0


def test_csv_and_tsv_give_the_same_rows(jsonl, tmp_path):
  expected = list(custom.rows(declare(jsonl), "train"))
  for ending, separator in (("csv", ","), ("tsv", "\t")):
    lines = [separator.join(NLI[0])]
    lines += [separator.join(row.values()) for row in NLI]
    path = tmp_path / f"rows.{ending}"
    path.write_text("\n".join(lines))
    task = declare(jsonl, name=ending, files={"train": str(path)})
    assert list(custom.rows(task, "train")) == expected


@pytest.mark.parametrize(
  ("value", "words", "expected"),
  [
    (0, ["no", "yes"], "no"),
    (True, ["no", "yes"], "yes"),
    ("yes", ["no", "yes"], "yes"),
    ("1", ["1", "0"], "1"),  # words win over positions
    (2, ["a", "b", "c"], "c"),
    (False, {"false": "wrong", "true": "right"}, "wrong"),
    (3, {3: "three", 4: "four"}, "three"),
  ],
)
def test_label_values(jsonl, value, words, expected):
  rows = [{"text": "t", "gold": value}]
  task = declare(jsonl, rows, template="{text}", label_words=words)
  assert next(custom.rows(task, "train"))["targets"] == expected


def test_two_values_may_share_a_word(jsonl):
  words = {"e": "yes", "c": "no", "n": "no"}
  task = declare(jsonl, label_words=words)
  assert task.label_words == ("yes", "no")
  assert "f1" in declare(
    jsonl, name="b", label_words=words, metrics=("f1",)
  ).evaluate(["yes"], [{spec.TARGETS: "yes", "idx": "0"}])


def test_answers_as_list_or_separated(jsonl):
  rows = [
    {"q": "a?", "gold": ["Oslo", "Kristiania"]},
    {"q": "b?", "gold": "Rome|||Roma"},
  ]
  task = declare(
    jsonl, rows, template="{q}", label_words=(), metrics=("squad",)
  )
  examples = [
    {spec.TARGETS: row["targets"], **row} for row in custom.rows(task, "train")
  ]
  assert [e["targets"] for e in examples] == ["Oslo", "Rome"]
  got = task.evaluate(["the kristiania", "roma."], examples)
  assert got == {"em": 100.0, "f1": 100.0}


def test_scores(jsonl):
  rows = [{"t": "a", "gold": s} for s in (-1, 0.5, "2")]
  task = declare(
    jsonl, rows, template="{t}", label_words=(), metrics=("pearson",)
  )
  examples = [
    {spec.TARGETS: row["targets"], **row} for row in custom.rows(task, "train")
  ]
  got = task.evaluate(["-1", "0.5", "2.0"], examples)
  assert got == {"pearson_corrcoef": pytest.approx(100)}


def test_a_test_split_may_lack_labels(jsonl):
  rows = [{k: v for k, v in row.items() if k != "gold"} for row in NLI]
  task = declare(jsonl, files={"test": jsonl(rows)})
  (row, _) = custom.rows(task, "test")
  assert (row["targets"], row["label"], row["answers"]) == ("<unk>", -1, [])
  with pytest.raises(ValueError, match="has no gold label"):
    task.evaluate(["yes"], [{spec.TARGETS: "<unk>", **row}])


def test_braces_and_odd_column_names(jsonl):
  rows = [{"two words": "{x}", "0": "zero", "gold": "e"}]
  task = declare(jsonl, rows, template="{{a}} {two words} {0}.")
  assert next(custom.rows(task, "train"))["inputs"] == "{a} {x} zero."


def test_identity_follows_content_not_place(jsonl, tmp_path):
  first = declare(jsonl)
  elsewhere = jsonl(NLI, "elsewhere.jsonl")
  again = declare(jsonl, files={"train": elsewhere})
  assert again.identity() == first.identity()
  json.dumps(first.identity())
  with pytest.raises(ValueError, match="different task or mixture named"):
    declare(jsonl, NLI[:1])
  with pytest.raises(ValueError, match="different task or mixture named"):
    declare(jsonl, template="{premise}")


@pytest.mark.parametrize(
  ("rows", "changes", "message"),
  [
    ([*NLI, '{"premise": '], {}, r":3: not JSON"),
    ([*NLI, '"text"'], {}, r":3: expected a JSON object"),
    ([], {}, r"no rows"),
    (
      [NLI[0], {**NLI[1], "gold": "entailed"}],
      {},
      r":2: unknown label 'entailed' in column 'gold'.* one of: e, c, n",
    ),
    (
      [{"premise": "a", "gold": "e"}],
      {},
      r":1: no column 'hypothesis', which the template needs.*premise, gold",
    ),
    (NLI, {"target_column": "golf"}, r":1: no column 'golf'.*mean 'gold'"),
    (
      [NLI[0], NLI[0]],
      {"id_column": "id"},
      r":2: id 'x' is already in .*:1; expected different values",
    ),
    (NLI, {"id_column": "key"}, r":1: no column 'key', which id_column needs"),
    (
      [{**NLI[0], "premise": None}],
      {},
      r":1: column 'premise' is null",
    ),
    (
      [{"premise": "a", "hypothesis": "b", "gold": " "}],
      {"label_words": ()},
      r":1: expected a target text in column 'gold', got ' '",
    ),
    (
      [{**NLI[0], "gold": "high"}],
      {"label_words": (), "metrics": ("pearson",)},
      r":1: expected a number in column 'gold', got 'high'",
    ),
  ],
)
def test_bad_rows(jsonl, rows, changes, message):
  """The first when the task is declared, the others when they are read."""
  path = jsonl(rows, "bad.jsonl")
  files = {"train": path}
  if len(rows) < 2 or message.startswith(":1:"):
    with pytest.raises(ValueError, match=re.escape(path)) as error:
      declare(jsonl, files=files, **changes)
    assert "my_nli" not in spec.names()
  else:
    task = declare(jsonl, files=files, **changes)
    with pytest.raises(ValueError, match=re.escape(path)) as error:
      list(custom.rows(task, "train"))
  assert re.search(message, str(error.value)), error.value


@pytest.mark.parametrize("value", ["[1, 2]", '{"a": 1}', "NaN", "1e999"])
@pytest.mark.parametrize("column", ["premise", "gold", "id"])
def test_what_is_no_text_is_no_part_of_one(jsonl, column, value):
  """It would have become Python's `repr`."""
  rows = [json.dumps({**NLI[0], column: "?"}).replace('"?"', value)]
  with pytest.raises(ValueError, match=rf":1: .*{column!r} is ") as error:
    declare(jsonl, rows, label_words=(), id_column="id")
  expected = {"[": "list", "{": "object", "N": "nan", "1": "inf"}[value[0]]
  assert expected in str(error.value)


def test_only_squad_divides_a_target(jsonl):
  """The others cut it at `|||`, and trained on what stood before."""
  rows = [{"q": "a?", "gold": "x|||y"}]
  (row,) = custom.rows(
    declare(jsonl, rows, "whole", template="{q}", label_words=()), "train"
  )
  assert (row["targets"], row["answers"]) == ("x|||y", ["x|||y"])
  squad = {"template": "{q}", "label_words": (), "metrics": ("squad",)}
  (row,) = custom.rows(declare(jsonl, rows, "parts", **squad), "train")
  assert (row["targets"], row["answers"]) == ("x", ["x", "y"])
  # Their token caches are different ones.
  contents = [spec.task(name).content for name in ("whole", "parts")]
  assert contents[0] != contents[1]


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_header_that_lacks_a_column_shows_at_once(tmp_path, ending):
  path = tmp_path / f"rows.{ending}"
  path.write_text(
    "text\tgold\na\te\n" if ending == "tsv" else "text,gold\na,e\n"
  )
  with pytest.raises(ValueError, match=r":2: no column 'txt'.*mean 'text'"):
    custom.declare("bad", {"train": str(path)}, "{txt}", "gold", WORDS)


def test_a_file_that_changed_is_not_read_for_another(jsonl):
  """Its cache is named by the hash of what was declared."""
  path = jsonl(NLI, "changing.jsonl")
  task = declare(jsonl, files={"train": path})
  jsonl(NLI[:1], "changing.jsonl")
  with pytest.raises(ValueError, match=r"changing\.jsonl has changed since"):
    list(custom.rows(task, "train"))
  again = declare(jsonl, name="again", files={"train": path})
  assert len(list(custom.rows(again, "train"))) == 1


def test_a_file_is_read_once_however_often_it_is_declared(jsonl, monkeypatch):
  path = jsonl(NLI)
  declare(jsonl, files={"train": path})
  monkeypatch.setattr("builtins.open", None)
  declare(jsonl, files={"train": path, "validation": path}, name="both")
  monkeypatch.undo()


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"name": "my task"}, r"Task name 'my task': expected letters"),
    ({"files": {}}, r"my_nli: no files"),
    ({"template": "no columns"}, r"names no column"),
    ({"template": "{}"}, r"expected only a column's name"),
    ({"template": "{a!r}"}, r"expected only a column's name"),
    ({"template": "{premise"}, r"Template '\{premise'"),
    ({"metrics": ("acc",)}, r"metric 'acc'\. Did you mean 'accuracy'"),
    ({"metrics": ("squad",)}, r"squad do not fit the label words yes, no"),
    ({"metrics": ("f1",)}, r"if there are two, f1"),
    ({"metrics": ("micro_f1_without:NA",)}, r"the class 'NA'; expected one"),
    (
      {"metrics": ("pearson", "squad"), "label_words": ()},
      r"do not fit free text",
    ),
    ({"label_words": ["a", "a"]}, r"repeat a word"),
    ({"label_words": "yes,no"}, r"expected a list or a mapping"),
  ],
)
def test_bad_arguments(jsonl, changes, message):
  with pytest.raises(ValueError, match=message):
    declare(jsonl, **changes)


def test_missing_file(jsonl, tmp_path):
  with pytest.raises(FileNotFoundError, match=r"absent\.jsonl"):
    declare(jsonl, files={"train": str(tmp_path / "absent.jsonl")})


def test_a_class_that_says_there_is_none_may_be_left_out(jsonl):
  task = declare(jsonl, metrics=("micro_f1_without:no",))
  gold, answers = ("yes", "no", "no"), ("yes", "yes", "no")
  examples = [{spec.TARGETS: text} for text in gold]
  got = task.evaluate(answers, examples)
  assert got["micro_f1_without_no"] == pytest.approx(200 / 3)


def test_metrics_by_name_cover_every_name():
  for name in custom.METRICS:
    of_classes = ("accuracy", "f1", "mean_f1", "matthews", custom.BY_RANKS)
    words = ("a", "b") if name in of_classes else ()
    metrics, _ = custom._metrics((name,), words)
    assert len(metrics) == (2 if words else 1)
