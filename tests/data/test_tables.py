"""Reading JSONL, CSV and TSV, with errors that name file and line."""

import re

import pytest

from prompt_tuning.data import tables


def write(tmp_path, name, content):
  path = tmp_path / name
  data = content if isinstance(content, bytes) else content.encode()
  path.write_bytes(data)
  return str(path)


def values(path, **options):
  return [row.values for row in tables.read(path, **options)]


def test_json_lines(tmp_path):
  path = write(tmp_path, "a.jsonl", '{"a": "ü", "b": 1}\n\n{"a": null}')
  rows = list(tables.read(path))
  assert [row.values for row in rows] == [{"a": "ü", "b": 1}, {"a": None}]
  assert [row.place for row in rows] == [f"{path}:1", f"{path}:3"]


def test_csv_quotes_and_line_numbers(tmp_path):
  path = write(tmp_path, "a.csv", 'a,b\n"x, ""y""\nz",1\n\nu,2\n')
  rows = list(tables.read(path))
  assert [row.values for row in rows] == [
    {"a": 'x, "y"\nz', "b": "1"},
    {"a": "u", "b": "2"},
  ]
  assert [row.place for row in rows] == [f"{path}:2", f"{path}:5"]


def test_tsv_has_no_quoting(tmp_path):
  path = write(tmp_path, "a.tsv", 'a\tb\n"x\t"y, z"\r\n')
  assert values(path) == [{"a": '"x', "b": '"y, z"'}]


def test_columns_may_be_named_by_the_caller(tmp_path):
  path = write(tmp_path, "a.tsv", "1\tx\n2\ty\n")
  assert values(path, columns=("id", "text")) == [
    {"id": "1", "text": "x"},
    {"id": "2", "text": "y"},
  ]


def test_a_byte_order_mark_is_dropped(tmp_path):
  path = write(tmp_path, "a.csv", b"\xef\xbb\xbfa,b\n1,2\n")
  assert values(path) == [{"a": "1", "b": "2"}]


def test_the_index_of_pandas_has_no_name(tmp_path):
  path = write(tmp_path, "a.csv", ",text,label\n0,x,1\n1,y,0\n")
  assert values(path)[1] == {"Unnamed: 0": "1", "text": "y", "label": "0"}


def test_a_carriage_return_alone_ends_a_line(tmp_path):
  """But within quotes, where it is part of a cell."""
  path = write(tmp_path, "a.csv", 'a,b\r1,"x\ry"\r\n2,z\r')
  rows = list(tables.read(path))
  assert [row.values for row in rows] == [
    {"a": "1", "b": "x\ry"},
    {"a": "2", "b": "z"},
  ]
  assert [row.place for row in rows] == [f"{path}:2", f"{path}:4"]
  path = write(tmp_path, "a.tsv", "a\tb\r1\t2\r")
  assert values(path) == [{"a": "1", "b": "2"}]
  path = write(tmp_path, "a.jsonl", '{"a": 1}\r{"a": 2}\r')
  assert values(path) == [{"a": 1}, {"a": 2}]


def test_a_whole_character_in_two_halves(tmp_path):
  path = write(tmp_path, "a.jsonl", '{"a": "\\ud83d\\ude42"}')
  assert values(path) == [{"a": "🙂"}]


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("a.jsonl", '{"a": 1}\nnot json\n', r"a\.jsonl:2: not JSON: .* column 1"),
    ("a.jsonl", '{"a": 1}\n[1]\n', r":2: expected a JSON object .* got list"),
    ("a.jsonl", "", r"no rows; expected at least one"),
    ("a.jsonl", "\n \n", r"no rows"),
    ("a.csv", "a,b\n", r"no rows"),
    (
      "a.jsonl",
      b'{"a": 1}\n{"a": "\xe9t\xe9"}\n',
      r":2: not UTF-8: byte 0xe9 at",
    ),
    ("a.csv", b"a,b\nx,\xff\n", r":2: not UTF-8: byte 0xff at position 2"),
    ("a.csv", "a,b\n1,2,3\n", r":2: 3 cells, expected 2: a, b"),
    ("a.csv", "a,b\n1\n", r":2: 1 cells, expected 2"),
    ("a.tsv", "a\tb\n1 2\n", r":2: 1 cells, expected 2"),
    ("a.csv", 'a,b\n1,"2\n', r":2: not CSV"),
    ("a.csv", "a,a\n1,2\n", r":1: expected a header of distinct .* 'a', 'a'"),
    ("a.csv", "a,\n1,2\n", r":1: expected a header"),
    ("a.json", '[{"a": 1},\n {"a": 2]', r"a\.json:2: not JSON: .* column 9"),
    ("a.json", '[{"a": 1}, 2]', r"\.json: \[1\]: expected a JSON object"),
    ("a.json", "[]", "no rows"),
    pytest.param(
      *("a.jsonl", '{"a": 1}\n' + 100_000 * "[", r":2: lists and objects"),
      id="deep",
    ),
    pytest.param(
      *("a.jsonl", '{"a": ' + 5_000 * "1" + "}", r":1: a number that cannot"),
      id="digits",
    ),
    ("a.jsonl", '{"a": "\\ud83d"}', r":1: \\ud83d is half a character"),
    ("a.jsonl", '\n{"\\udc00": 1}', r":2: \\udc00 is half a character"),
    ("a.csv", "a,b\n1,\0\n", r":2: the line has a zero byte, so the"),
    ("a.csv", "a,b".encode("utf-16"), r":1: UTF-16; .*iconv -f utf-16"),
    ("a.csv", ",a,\n0,1,2\n", r":1: expected a header"),
    ("a.txt", "a", r"ending in \.jsonl, \.json, \.csv, \.tsv, got '\.txt'"),
    ("a", "a", r"got 'no ending'"),
  ],
)
def test_errors_name_file_line_and_expectation(
  tmp_path, name, content, message
):
  path = write(tmp_path, name, content)
  with pytest.raises(ValueError, match=re.escape(path)) as error:
    list(tables.read(path))
  assert re.search(message, str(error.value))


def test_a_missing_file(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"absent\.csv"):
    list(tables.read(str(tmp_path / "absent.csv")))


def test_value_names_the_nearest_column():
  row = tables.Row("f:3", {"premise": "x", "label": None})
  assert row.value("premise", "the template") == "x"
  with pytest.raises(
    ValueError, match=r"f:3: no column 'premiss', which the template needs\. "
  ) as error:
    row.value("premiss", "the template")
  assert "Did you mean 'premise'? This row has: premise, label." in str(
    error.value
  )
  with pytest.raises(ValueError, match=r"f:3: column 'label' is null"):
    row.value("label", "target_column")
