"""The template language: OpenPrompt's spelling, and nothing is ever run."""

import re

import pytest

from prompt_tuning.prompting import template
from prompt_tuning.prompting.template import (
  Field,
  Mask,
  Options,
  Soft,
  Text,
  parse,
)


def parts(source):
  return parse(source).parts


def test_text_and_slots_alternate():
  source = ' A {"mask"} news : {"placeholder": "text_a"}{"meta":"word"}.'
  assert parts(source) == (
    Text(True, "A"),
    Mask(True, 0),
    Text(True, "news :"),
    Field(True, "text_a", shorten=True),
    Field(False, "word"),
    Text(False, "."),
  )
  assert parse(source).fields == ("text_a", "word")


@pytest.mark.parametrize(
  ("slot", "part"),
  {
    '{"field": "a"}': Field(True, "a"),
    '{"field": "a", "shorten": true}': Field(True, "a", True),
    '{"field": "a", "shorten": "start"}': Field(True, "a", True, True),
    '{"placeholder":"a", "shortenable":False}': Field(True, "a"),
    '{"meta": "a", "shortenable": True}': Field(True, "a", True),
    '{"soft"}': Soft(True),
    '{"soft": null, "duplicate": 3}': Soft(True, count=3),
    '{"soft": None, "duplicate": 3, "same": True}': Soft(
      True, count=3, same=True
    ),
    '{"soft": 10}': Soft(True, count=10),
    '{"soft": "It was"}': Soft(True, "It was"),
    '{"soft": "the", "id": 3}': Soft(True, "the", key=3),
    '{"soft_id": 3}': Soft(True, key=3),
    '{"options": ["a", "b"]}': Options(True, ("a", "b")),
    '{"options": "a"}': Options(True, ("a",)),
    '{"options"}': Options(True, ("options",)),
    '{"text": "{x}"}': Text(True, "{x}"),
    '{"text": "caf\\u00e9"}': Text(True, "café"),
  }.items(),
)
def test_slots(slot, part):
  assert parts(f'{{"mask"}} {slot}')[1] == part


def test_masks_are_numbered_in_order_but_for_those_with_numbers():
  numbers = [m.number for m in parts('{"mask"} {"mask": 0} {"mask"}')]
  assert numbers == [1, 0, 2]


def test_a_word_begins_behind_virtual_tokens():
  _, text, soft, answer = parts('{"mask"}, {"soft"}answer')
  assert (text.blank, soft.blank, answer.blank) == (False, True, True)


BAD = {
  "no mask": ('{"field": "a"}', 'no {"mask"} in '),
  "unknown key": ('{"mask"} {"fields": "a"}', "unknown key 'fields'. Did you"),
  "key of another": ('{"mask": 0, "id": 3}', "a slot 'mask' has no key 'id'"),
  "two kinds": ('{"mask", "soft"}', "a slot of mask and soft"),
  "no kind": ('{"id": 3} {"mask"}', "a slot of no kind"),
  "twice": ('{"mask", "mask"}', "'mask' stands twice"),
  "a lambda": (
    '{"mask"} {"meta": "a", "post_processing": lambda x: x+"."}',
    "'post_processing' is a lambda, and code in a template is never run",
  ),
  "a lambda as text": (
    '{"mask"} {"meta": "a", "post_processing": "lambda x: x"}',
    "'post_processing' is a lambda",
  ),
  "a lambda elsewhere": ('{"mask"} {"meta": lambda: 3}', "expected a JSON"),
  "a call": ("{\"mask\"} {__import__('os')}", "expected a name in quotes"),
  "special": ('{"special": "<sep>"} {"mask"}', "'special' names a token of"),
  "not closed": ('{"mask"} {"meta": "a"', "expected ',' or '}' at column 22"),
  "mask numbers": ('{"mask": 1} {"mask": 1}', "masks [1, 1]; expected"),
  "one mask 1": ('{"mask": 1}', "masks [1]; expected the numbers 0 to 0"),
  "a field of no name": ('{"mask"} {"field": ""}', "'field': expected a text"),
  "shorten": ('{"mask"} {"field": "a", "shorten": 1}', "expected true or"),
  "shorten from": (
    '{"mask"} {"field": "a", "shorten": "end"}',
    "expected true or false, or 'start'",
  ),
  "a short mask": (
    '{"mask", "shortenable": true}',
    "a slot of the kind mask cannot be shortened",
  ),
  "soft 0": ('{"mask"} {"soft": 0}', "expected 1 to 10000, got 0"),
  "soft true": ('{"mask"} {"soft": true}', "'soft': expected a text, got True"),
  "soft id": ('{"mask"} {"soft": 3, "id": "x"}', "soft id 'x'"),
  "other words": (
    '{"mask"} {"soft": "a", "id": 3} {"soft": "b", "id": 3}',
    "soft tokens of id 3 differ: 'a' (1) and 'b' (1)",
  ),
}


@pytest.mark.parametrize(("source", "error"), BAD.values(), ids=BAD)
def test_bad_templates(source, error):
  with pytest.raises(ValueError, match=re.escape(error)) as info:
    parse(source, "a.txt:7")
  assert str(info.value).startswith("a.txt:7: ")


def test_files_have_a_template_per_line(tmp_path):
  path = tmp_path / "templates.txt"
  path.write_text(' A {"mask"}\n{"meta": lambda: 3}\n\n{"mask"} B\n')
  assert template.read(path).parts[0] == Text(True, "A")
  assert template.read(path, 2).place == f"{path}:4"
  with pytest.raises(ValueError, match=re.escape(f"{path}:2: expected a JSON")):
    template.read(path, 1)
  with pytest.raises(ValueError, match=r"has 3 templates, .* no template 3"):
    template.read(path, 3)


def test_templates_of_a_file_have_equally_many_masks(tmp_path):
  path = tmp_path / "templates.txt"
  path.write_text('A {"mask"}\n{"mask"} {"mask"}\n')
  error = f"{path}:1 has masks: 1, and {path}:2: 2."
  with pytest.raises(ValueError, match=re.escape(error)):
    template.read(path)
