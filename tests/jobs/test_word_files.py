"""Files of templates and label words, in a table."""

import pytest

from prompt_tuning.data import vocabulary
from prompt_tuning.jobs import word_files
from prompt_tuning.launch import main


@pytest.fixture(autouse=True)
def _no_vocabulary(monkeypatch):
  monkeypatch.setattr(vocabulary, "_configured", None)


def test_everything_is_read_or_refused_for_a_reason(tmp_path, capsys):
  (tmp_path / "a_template.txt").write_text(
    'It was {"mask"} . {"meta": "a"}\n{"mask"} {"soft": 2}\n'
    '{"mask"} {"meta": "a", "post_processing": lambda x: x}\n\n'
  )
  (tmp_path / "b_words.txt").write_text("good,great\nbad,terrible\n\nyes\nno\n")
  (tmp_path / "c_words.json").write_text('{"a": "good"}')
  (tmp_path / "d_words.txt").write_text('{"meta": "a"}\nno\n')
  (tmp_path / "e_words.txt").write_text("")
  (tmp_path / "f_rules.tsv").write_text("a\tgood\tman\nb\tgood\tdog\n")
  (tmp_path / "g_rules.json").write_text(
    '{"a": ["dog", "dog"], "b": ["unhappily", "man"]}'
  )
  (tmp_path / "README.md").write_text("no words")
  words = ["words", str(tmp_path), "--vocabulary", "embedded:ladder_1"]
  assert main.main(["data", *words]) == 0
  lines = capsys.readouterr().out.splitlines()
  at = {
    line.removeprefix(f"{tmp_path}/").split("  ")[0]: line for line in lines
  }
  assert at["a_template.txt [0]"].endswith("  masks 1  fields 1  soft tokens 0")
  assert at["a_template.txt [1]"].endswith("  masks 1  fields 0  soft tokens 2")
  assert "refused: 3: 'post_processing' is a lambda" in at["a_template.txt [2]"]
  assert "classes 2  words 4  one piece" in at["b_words.txt [0]"]
  assert "classes 2  words 2  one piece" in at["b_words.txt [1]"]
  assert "refused: 1: 1 class; expected two or more" in at["c_words.json [0]"]
  assert 'refused: 1: \'{"meta": "a"}\' is another word' in at["d_words.txt"]
  assert "refused:  the file has no lines" in at["e_words.txt"]
  assert at["f_rules.tsv [0]"].endswith(
    "classes 2  masks 2  words 3  several pieces 0"
  )
  assert at["g_rules.json [0]"].endswith(
    "classes 2  masks 2  words 4  several pieces 1"
  )
  assert lines[-1] == "6 read, 4 refused"


def test_a_path_that_is_not_there(tmp_path):
  with pytest.raises(FileNotFoundError, match="No file or folder"):
    list(word_files.lines([str(tmp_path / "x")], "embedded:ladder_1"))


def test_openprompts_own_files(shared_data):
  """Counts alone: which are read, and why others are not."""
  lines = list(
    word_files.lines(
      [str(shared_data / "verbalizers")],
      str(shared_data / "t5_vocab" / "sentencepiece.model"),
    )
  )
  reasons = {
    "'post_processing' is a lambda": 13,
    "'special' names a token": 1,
    "1 class; expected two": 4,
    "is another word in every row": 3,
    "the file has no lines": 1,
  }
  refused = [line for line in lines if "refused: " in line]
  for reason, count in reasons.items():
    assert sum(reason in line for line in refused) == count, reason
  assert lines[-1] == f"79 read, {sum(reasons.values())} refused"
  news = next(line for line in lines if "agnews/knowledgeable" in line)
  assert "words 1379  one piece 529  several pieces 850" in news
  classes = next(line for line in lines if "dbpedia/knowledgeable" in line)
  assert "words 6370  one piece 2171" in classes
  assert "unknown 2" in classes


def test_the_papers_own_rules(shared_data):
  """Counts alone; those of TACRED's masks are the paper's."""
  paths = sorted(map(str, (shared_data / "relation").rglob("ptr_*")))
  folder = shared_data / "t5_vocab" / "with_sentinels"
  lines = word_files.lines(paths, str(folder / "sentencepiece.model"))
  found = [line.split("  ", 1)[1] for line in lines if "ptr_" in line]
  tacred = "classes 42  masks 5  words 51  several pieces 6"
  assert found.count(tacred) == 3
  assert "classes 40  masks 5  words 50  several pieces 6" in found
  assert "classes 19  masks 5  words 74  several pieces 0" in found
  assert "classes 19  masks 2  words 19  several pieces 0" in found
  assert found.count("masks 5  fields 3  soft tokens 0") == 3
