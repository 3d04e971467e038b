"""`prompt-tuning data`, as typed."""

import io
import json
import re
import sys

import gin
import pytest
import seqio

from prompt_tuning.data import spec, vocabulary
from prompt_tuning.launch import main
from tests.bucket_servers import put_tree


@pytest.fixture
def source(tmp_path):
  """CB with four invented training rows."""
  folder = tmp_path / "CB"
  folder.mkdir()
  labels = ["entailment", "neutral", "entailment", "contradiction"]
  rows = [
    {
      "premise": "It rained.",
      "hypothesis": "It was wet." + " Very." * idx,
      "label": label,
      "idx": idx,
    }
    for idx, label in enumerate(labels)
  ]
  (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
  return folder


def run(capsys, *words):
  status = main.main(["data", *map(str, words)])
  output = capsys.readouterr()
  return status, output.out, output.err


def test_data_in_a_bucket(source, gs, tmp_path, capsys, vocabulary_file):
  """Official files there, TFDS's directory there, tokens here."""
  root = gs.folder()
  put_tree(source, f"{root}/official/CB")
  where = ("--tfds_data_dir", f"{root}/tfds")
  words = ("prepare", "--source", f"{root}/official", *where)
  assert run(capsys, *words)[1] == "super_glue/cb:1.0.2  train 4 of 250\n"
  assert "(was there)" in run(capsys, *words)[1]
  cached = ("--cache_dir", tmp_path, "--vocabulary", vocabulary_file)
  shown = ("show", "taskless_super_glue_cb_v102", "--examples", 1)
  status, out, _ = run(capsys, *shown, *where, *cached)
  assert status == 0
  assert "It rained." in out
  # Once: from then on it is known which rows they are.
  asked = len(gs.proxy.requests)
  assert run(capsys, *shown, *where, *cached)[1] == out
  later = [path for _, path, *_ in gs.proxy.requests[asked:]]
  assert not any("tfrecord" in path and "alt=media" in path for path in later)
  # It is not downloaded into a folder called `gs:`.
  status, _, err = run(
    capsys, "show", "taskless_super_glue_rte_v102", *where, *cached
  )
  assert status == 2
  assert f"{root}/tfds has no super_glue/rte:1.0.2" in err


def test_prepare_list_show(
  source, tmp_path, capsys, vocabulary_file, monkeypatch
):
  where = ("--tfds_data_dir", tmp_path / "tfds")
  status, out, _ = run(capsys, "prepare", "--source", source, *where)
  assert (status, out) == (0, "super_glue/cb:1.0.2  train 4 of 250\n")
  _, out, _ = run(capsys, "prepare", "--source", source, *where)
  assert out == "super_glue/cb:1.0.2  train 4 of 250  (was there)\n"

  status, out, _ = run(capsys, "list", "taskless_super_glue_cb", *where)
  assert status == 0
  assert " ".join(out.splitlines()[0].split()) == (
    "taskless_super_glue_cb_v102 super_glue/cb:1.0.2: train 4 of 250, "
    "validation missing, test missing"
  )

  monkeypatch.setattr(vocabulary, "_configured", None)
  where_cached = ("--cache_dir", tmp_path / "cache")
  cached = (*where_cached, "--vocabulary", vocabulary_file)
  task = "taskless_super_glue_cb_v102"
  status, out, _ = run(capsys, "show", task, *where, *cached, "--examples", 1)
  assert status == 0
  assert "  inputs: hypothesis: It was wet." in out
  assert "    pieces: ▁" in out
  words = vocabulary.load(vocabulary_file)
  labels = map(words.encode, ("contradiction", "neutral", "entailment"))
  lines = [" ".join(map(str, [*ids, words.eos_id])) for ids in labels]
  assert any(f"    ids:    {line}\n" in out for line in lines)
  assert "\n4 examples\n" in out
  assert "  target 'entailment': 50.0 %" in out
  assert "0 (limit 512)" in out


def test_show_a_templated_task_of_a_gin_file(tmp_path, capsys, monkeypatch):
  """Its slots and their pieces side by side."""
  monkeypatch.setattr(vocabulary, "_configured", None)
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))
  known = dict(seqio.TaskRegistry._REGISTRY)
  monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", known)
  rows = [{"text": f"the sea {k}", "kind": k % 2} for k in range(4)]
  path = tmp_path / "rows.jsonl"
  path.write_text("\n".join(map(json.dumps, rows)))
  (tmp_path / "task.gin").write_text(f"""
MIXTURE_OR_TASK_NAME = @data.templated_task()
SOFT = %gin.REQUIRED
data.templated_task:
  name = "own_sea"
  source = @data.custom_task()
  template = '{{"soft": 2}} It was {{"mask"}}. {{"placeholder": "text"}}'
  label_words = {{"no": ["cold", "bad"], "yes": "wide"}}
data.custom_task:
  name = %SOFT
  files = {{"train": "{path}"}}
  template = "{{text}}"
  target_column = "kind"
  label_words = ("no", "yes")
""")
  words = ["show", "--gin_file", tmp_path / "task.gin", "--gin.SOFT='own_rows'"]
  words += ["--cache_dir", tmp_path / "cache", "--examples", 1]
  words += ["--gin_file", "models/embedded.gin"]
  status, out, err = run(capsys, *words)
  gin.clear_config()
  assert status == 0, err
  lines = [" ".join(line.split()) for line in out.splitlines()]
  assert lines[:2] == ["own_sea, train, rate 1", "3 label words of 2 classes"]
  assert "inputs: [soft 0] [soft 1] It was <extra_id_0>. the sea 0" in lines
  assert "soft 0 to 1 [0] [1]" in lines
  assert "mask 0 ▁<extra_id_0>" in lines
  assert "text ▁It ▁was" in lines
  assert "text ." in lines
  assert any(
    line.startswith("field text (may be shortened) ▁the ▁sea") for line in lines
  )
  assert "targets: <extra_id_0> cold" in lines
  template = "--gin.templated_task.template='{mask}'"
  error = run(capsys, *words, template)[2]
  gin.clear_config()
  assert error.startswith("error: own_sea: template: ")
  assert error.count("\n") == 1  # nothing of gin's own calls
  assert run(capsys, "show")[2].startswith("error: No task: name one")
  with pytest.raises(SystemExit):
    run(capsys, "list", "--gin.SOFT=3")
  assert "unrecognized arguments: --gin.SOFT=3" in capsys.readouterr().err


def test_a_list_of_everything_fits_a_screen(tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  status, out, _ = run(capsys, "list", "--tfds_data_dir", "tfds")
  lines = out.splitlines()
  assert status == 0
  assert len(lines) < 24
  assert max(map(len, lines)) <= 80
  rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
  assert rows["super_glue"][:4] == ["72", "0", "of", "11"]
  assert rows["skills"][:4] == ["50", "25", "of", "25"]  # generated
  assert "_k16_seed0" in out
  (tmp_path / "tfds/super_glue/cb/1.0.2").mkdir(parents=True)
  info = {"splits": [{"name": "train", "shardLengths": ["250"]}]}
  text = json.dumps(info)
  (tmp_path / "tfds/super_glue/cb/1.0.2/dataset_info.json").write_text(text)
  _, out, _ = run(capsys, "list", "--tfds_data_dir", "tfds")
  assert re.search(r"^super_glue +72 +1 of 11 ", out, re.M)


def test_a_k_shot_task_is_listed(tmp_path, capsys):
  name = "taskless_super_glue_cb_v102_k16_seed0"
  status, out, _ = run(capsys, "list", name, "--tfds_data_dir", tmp_path)
  assert status == 0
  assert out.startswith(f"{name}  super_glue/cb:1.0.2: train missing")


def test_prepare_shows_how_far_it_is(source, tmp_path, capsys, monkeypatch):
  """A bar on a terminal, and a line as soon as a data set is there."""
  terminal = io.StringIO()
  terminal.isatty = lambda: True
  monkeypatch.setattr(sys, "stderr", terminal)
  folders = ("--source", source, "--tfds_data_dir", tmp_path / "tfds")
  assert run(capsys, "prepare", *folders)[0] == 0
  assert "super_glue/cb: reading train" in terminal.getvalue()
  assert "super_glue/cb: writing train" in terminal.getvalue()


def test_list_names_every_task(tmp_path, capsys):
  status, out, _ = run(capsys, "list", "--all", "--tfds_data_dir", tmp_path)
  assert status == 0
  assert len(out.splitlines()) > 200
  assert "squad_to_duo_rc  " in out
  assert "mixture of squad_v010_allanswers, mrqa_duo_rc_v100\n" in out


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (
      ("show", "taskles_glue_sst2_v200"),
      "Did you mean 'taskless_glue_sst2_v200",
    ),
    (("list", "super_gleu_boolq_v102"), "Did you mean 'super_glue_boolq_v102'"),
    (
      ("prepare", "--source", "nowhere", "--tfds_data_dir", "x"),
      "No source dir",
    ),
  ],
)
def test_mistakes(capsys, tmp_path, monkeypatch, words, message):
  monkeypatch.chdir(tmp_path)
  status, out, err = run(capsys, *words)
  assert status == 2
  assert out == ""
  assert err.startswith("error: ")
  assert message in err
  assert list(tmp_path.iterdir()) == []


def test_a_bad_row_is_named(source, tmp_path, capsys):
  path = source / "train.jsonl"
  path.write_text(path.read_text().replace("neutral", "neutrale"))
  status, _, err = run(
    capsys, "prepare", "--source", source, "--tfds_data_dir", tmp_path / "tfds"
  )
  assert status == 2
  assert "train.jsonl:2: unknown label 'neutrale'; expected one of" in err
