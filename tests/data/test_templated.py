"""Tasks of a template and label words: what is declared, what is refused."""

import json
import re

import pytest

from prompt_tuning.data import custom, spec, templated
from prompt_tuning.prompting.rules import Rules

TEMPLATE = '{"placeholder": "text_a"} {"mask"} , {"field": "hypothesis"}'
FIELDS = {"text_a": "premise"}
WORDS = {"yes": ["right", "true"], "no": "wrong"}


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))


@pytest.fixture
def source(tmp_path):
  path = tmp_path / "rows.jsonl"
  row = {"premise": "It rains.", "hypothesis": "It is wet.", "gold": "yes"}
  path.write_text(json.dumps(row))
  return custom.declare(
    "own_rows",
    {"train": str(path)},
    template="{premise} {hypothesis}",
    target_column="gold",
    label_words=("no", "yes"),
  ).name


def declare(source, **changes):
  arguments = {
    "template": TEMPLATE,
    "label_words": WORDS,
    "fields": FIELDS,
    **changes,
  }
  return templated.declare("own", source, **arguments)


def test_a_task_has_its_source_s_classes_and_its_words_as_targets(source):
  task = declare(source)
  assert spec.get("own") is task
  assert task.label_words == ("<extra_id_0> wrong", "<extra_id_0> right")
  assert templated.label_words(task).words == (("wrong",), ("right", "true"))
  assert task.splits == spec.task(source).splits
  examples = [{spec.TARGETS: text} for text in task.label_words]
  predictions = ["<extra_id_0> wrong", "<extra_id_0> true"]
  assert task.evaluate(predictions, examples)["accuracy"] == 100.0
  assert task.evaluate(["wrong", "no"], examples)["accuracy"] == 0.0
  assert templated.label_words(spec.task(source)) is None
  assert templated.renderer(spec.task(source), None) is None


def test_a_plain_task_answers_with_the_word_alone(source):
  task = declare(source, target_format="plain")
  assert task.label_words == ("wrong", "right")


def test_whatever_changes_the_examples_changes_the_cache(source):
  task = declare(source)
  for changes in (
    {"template": TEMPLATE + " ."},
    {"label_words": {"yes": "right", "no": "wrong"}},
    {"fields": {"text_a": "hypothesis"}},
    {"target_format": "plain"},
  ):
    with pytest.raises(ValueError, match=r"A different task .* named 'own'"):
      declare(source, **changes)
  assert declare(source).identity() == task.identity()


def test_words_of_two_classes_may_be_dropped(source):
  words = {"yes": ["right", "so"], "no": ["wrong", "so"]}
  task = declare(source, label_words=words, common_words="drop")
  assert templated.label_words(task).words == (("wrong",), ("right",))


def test_a_class_of_common_words_keeps_its_best_and_says_so(source, caplog):
  words = {"yes": ["right", "so"], "no": ["so", "right"]}
  task = declare(source, label_words=words, common_words="drop")
  assert templated.label_words(task).words == (("so",), ("right",))
  said = [record.getMessage() for record in caplog.records]
  assert [text.endswith("its best word, 'so'.") for text in said] == [
    True,
    False,
  ]
  assert "Label class 'no': other classes also have all its words" in said[0]


def test_the_best_of_common_words_is_not_one_without_weight(source, caplog):
  words = {
    "yes": {"right": 0.1, "so": 1},
    "no": {"so": 0, "right": 1, "odd": 0},
  }
  task = declare(source, label_words=words, common_words="drop")
  found = templated.label_words(task)
  assert found.words == (("right", "odd"), ("so",))
  assert found.weights == ((1, 0), (1,))
  said = [record.getMessage() for record in caplog.records]
  assert [text.split("best word, ")[1] for text in said] == [
    "'right'.",
    "'so'.",
  ]


def test_a_task_remembers_where_files_say_it(source, tmp_path):
  """Also a k-shot task; the cache does not go by it."""
  words, lines = tmp_path / "words.txt", tmp_path / "templates.txt"
  words.write_text("wrong\nright,true\n")
  lines.write_text(f"{TEMPLATE}\n")
  files = {"label_words_file": str(words), "template_file": str(lines)}
  task = declare(source, template="", label_words=None, **files)
  for name in ("own", "own_k1_seed0"):
    found = templated.label_words(spec.task(name))
    assert found.place(1) == f"{words}:2: class 'yes'"
    renderer = templated.renderer(spec.task(name), NoVocabulary())
    assert renderer.template.place == f"{lines}:1"
  plain = declare(source)
  assert plain.identity() == task.identity()
  assert templated.label_words(plain).place(1) == "Label class 'yes'"


class NoVocabulary:
  def encode(self, text):
    return [ord(letter) for letter in text]


def test_published_tasks_are_sources_too(tmp_path):
  path = tmp_path / "words.txt"
  path.write_text("yes\nno,nay\n")
  task = templated.declare(
    "own_rte",
    "taskless_super_glue_rte_v102",
    template='{"field": "premise"} {"mask"} {"field": "hypothesis"}',
    label_words_file=str(path),
  )
  assert task.label_words == ("<extra_id_0> yes", "<extra_id_0> no")
  assert task.source == "super_glue/rte:1.0.2"
  assert templated.label_words(task).classes == ("entailment", "not_entailment")
  multirc = templated.declare(
    "own_multirc",
    "taskless_super_glue_multirc_v102",
    template='{"field": "paragraph"} {"field": "answer"} {"mask"}',
    label_words={"False": "no", "True": "yes"},
  )
  example = {"idx/paragraph": 1, "idx/question": 2, "idx/answer": 3}
  found = multirc.postprocess(
    "<extra_id_0> yes", example=example, is_target=True
  )
  assert found == {"value": 1, "group": (1, 2)}


def test_classes_may_be_called_otherwise(tmp_path):
  path = tmp_path / "words.json"
  words = {"World": "politics", "Sports": "sports"}
  words |= {"Business": "business", "Tech": ["technology"]}
  path.write_text(json.dumps(words))
  arguments = {
    "source": "taskless_ag_news_v100",
    "template": '{"mask"} {"field": "title"}',
    "label_words_file": str(path),
  }
  with pytest.raises(ValueError, match=r"unknown class 'Tech'. Did you mean"):
    templated.declare("own_news", **arguments)
  classes = ("World", "Sports", "Business", "Tech")
  task = templated.declare("own_news", **arguments, classes=classes)
  assert task.label_words[3] == "<extra_id_0> technology"


BAD = {
  "no template": ({"template": ""}, "give one of template, template_file"),
  "two": ({"template_file": "x"}, "give one of template, template_file"),
  "two words": (
    {"rules": {}},
    "give one of label_words, label_words_file, rules and",
  ),
  "no words": ({"label_words": None}, "give one of label_words, label"),
  "no mask": (
    {"template": '{"field": "premise"}'},
    'own: template: no {"mask"',
  ),
  "two masks": (
    {"template": '{"mask"} {"mask"}', "fields": {}},
    "own: template: 2 masks; label words answer only one. Give",
  ),
  "two templates": (
    {"sub_prompts": ['{"mask"}']},
    "give one of template, template_file and sub_prompts",
  ),
  "words that are no rules": (
    {"substitutes": {"a": "b"}},
    "belong to rules, but the task has none",
  ),
  "no such field": (
    {"template": '{"mask"} {"field": "premis"}', "fields": {}},
    "no column 'premis', which own: template needs. Did you mean 'premise'?",
  ),
  "not of the template": (
    {"fields": {**FIELDS, "text_b": "gold"}},
    "the template has no field 'text_b'. Did you mean 'text_a'?",
  ),
  "a class": ({"label_words": {"yes": "a", "nay": "b"}}, "unknown class 'nay'"),
  "a class without words": ({"label_words": {"yes": "a"}}, "no words of class"),
  "an empty class": (
    {"label_words": {"yes": "a", "no": []}},
    "class 'no' has no words",
  ),
  "the same target": (
    {"label_words": {"yes": ["a", "b"], "no": "a"}},
    "Label class 'yes' and Label class 'no' have the same first label word",
  ),
  "classes": (
    {"classes": ("a", "b", "c")},
    "own: 3 classes, but own_rows has 2",
  ),
  "common": ({"common_words": "x"}, "own: common_words 'x'"),
  "format": ({"target_format": "x"}, "Target format 'x'"),
}


@pytest.mark.parametrize(("changes", "error"), BAD.values(), ids=BAD)
def test_bad_arguments(source, changes, error):
  with pytest.raises(ValueError, match=re.escape(error)):
    declare(source, **changes)
  assert "own" not in spec.names()


RULES = {"no": ["sun", "and", "rain"], "yes": ["rain", "is", "rain"]}
PARTS = ('{"field": "premise"}', 'the {"mask"} {"mask"}', 'a {"mask"}')


def declare_rules(source, **changes):
  arguments = {"sub_prompts": PARTS, "rules": RULES, **changes}
  return templated.declare("own", source, **arguments)


def test_rules_have_a_word_at_each_mask(source):
  task = declare_rules(source)
  assert task.label_words == (
    "<extra_id_0> sun <extra_id_1> and <extra_id_2> rain",
    "<extra_id_0> rain <extra_id_1> is <extra_id_2> rain",
  )
  assert templated.rules(task) == Rules.of(RULES)
  assert templated.label_words(task) is None
  assert templated.first_words(task) == ("sun and rain", "rain is rain")
  whole = " ".join(PARTS)
  again = declare_rules(source, sub_prompts=(), template=whole)
  assert again.identity() == task.identity()
  examples = [{spec.TARGETS: text} for text in task.label_words]
  predictions = [task.label_words[0], "<extra_id_0> rain <extra_id_1> is"]
  assert task.evaluate(predictions, examples)["accuracy"] == 50.0


def test_rules_of_a_file_exchanged_and_with_substitutes(source, tmp_path):
  path = tmp_path / "rules.txt"
  path.write_text("0\tDry\tsun\train\n2\tWet\tsun\train\tDry\n")
  task = declare_rules(
    source,
    sub_prompts=(*PARTS[:1], '{"mask"} {"mask"}'),
    rules=None,
    rules_file=str(path),
    classes=("Dry", "Wet"),
    reversed_order=(1, 0),
    substitutes={"sun": "light"},
  )
  assert templated.rules(task).words == (("light", "rain"), ("rain", "light"))
  assert templated.rules(task).place(1) == f"{path}:2: rule of 'Wet'"


BAD_RULES = {
  "a class": (
    {"rules": {**RULES, "maybe": ["a", "b", "c"]}},
    "The rule of 'maybe': the data has no such class",
  ),
  "a class without": (
    {"classes": ("no", "never")},
    "The rule of 'yes': the data has no such class",
  ),
  "words": (
    {"rules": {**RULES, "no": ["sun", "rain"]}},
    "The rule of 'no': 2 words (sun, rain), but own: sub_prompts has 3 masks",
  ),
  "alike": (
    {"rules": dict.fromkeys(RULES, RULES["no"])},
    "cannot tell the two classes apart",
  ),
  "plain": ({"target_format": "plain"}, "a plain target answers only one"),
  "numbers": (
    {"sub_prompts": (*PARTS[:2], '{"mask": 0}')},
    "own: sub_prompts: masks [1, 2, 0]",
  ),
  "no list": ({"sub_prompts": PARTS[1]}, "expected a list of texts"),
  "substitutes": ({"substitutes": {"a": "b"}}, "no rule has the word 'a'"),
}


@pytest.mark.parametrize(
  ("changes", "error"), BAD_RULES.values(), ids=BAD_RULES
)
def test_bad_rules(source, changes, error):
  with pytest.raises(ValueError, match=re.escape(error)):
    declare_rules(source, **changes)
  assert "own" not in spec.names()


def test_templates_of_a_file_have_equally_many_masks(source, tmp_path):
  path = tmp_path / "templates.txt"
  path.write_text('{"mask"} {"mask"} {"mask"}\n{"mask"} or {"mask"}\n')
  with pytest.raises(ValueError, match=r"txt:1 has masks: 3, and .*txt:2: 2"):
    declare_rules(source, sub_prompts=(), template_file=str(path))


@pytest.mark.parametrize(
  ("name", "error"),
  {
    "squad_v010_allanswers": "has no classes",
    "skill_first": "has no classes",
    "taskless_super_glue_rte_v102_k4_seed0": "is itself made from another",
    "taskless_super_glue_rt_v102": "Unknown task",
  }.items(),
)
def test_sources_without_classes(name, error):
  with pytest.raises(ValueError, match=error):
    templated.declare("own", name, template=TEMPLATE, label_words=WORDS)
