"""Every command with no path on this machine but that of the token cache."""

import contextlib
import io
import json
import os
import pathlib
import socket

import numpy as np
import pytest

from prompt_tuning.core import files, object_store, sole_writer
from prompt_tuning.infer import outputs
from prompt_tuning.launch import main
from tests.bucket_servers import get_tree, put_tree
from tests.jobs.short_run import without_pictures

STEP = 1_100_000
SAME = (".safetensors", ".npy", ".png")  # of which no byte names a path
SEEDS = ("seed0", "seed1")
BANK = ("--gin.SEEDS=(0, 1)", "--gin.CONTROLS=True", "--gin.EVAL_STEPS=20")
# One request in so many fails while a run trains. gcsfs waits a second or two
# after each.
FAILS = {"gs": 150, "s3": 20}


def same(tree):
  return {name: data for name, data in tree.items() if name.endswith(SAME)}


def command(*words):
  """Run a command; returns what it prints."""
  with contextlib.redirect_stdout(io.StringIO()) as out:
    status = main.main([str(word) for word in words])
  assert status == 0, out.getvalue()
  return out.getvalue()


@pytest.fixture(autouse=True)
def nothing_here(tmp_path, monkeypatch):
  """Insist that nothing appears in the working folder."""
  folder = tmp_path / "cwd"
  folder.mkdir()
  monkeypatch.chdir(folder)
  yield
  assert os.listdir(folder) == []


@pytest.fixture(autouse=True)
def nobody_elsewhere(monkeypatch):
  """Insist that no other machine is asked anything."""
  connect, asked = socket.socket.connect, []

  def noted(self, address):
    if self.family != socket.AF_UNIX:
      asked.append(address[0])
    return connect(self, address)

  monkeypatch.setattr(socket.socket, "connect", noted)
  yield
  assert set(asked) <= {"127.0.0.1", "::1"}


@pytest.fixture(scope="module")
def in_bucket(tiny_checkpoint, task_gin, vocabulary_file):
  """Put model, vocabulary and data into a bucket: `(bucket) -> (flags, root)`.

  `flags` replaces paths of this machine by those of what is in the bucket.
  """

  def put(bucket):
    root = bucket.folder()
    moved = {
      tiny_checkpoint: f"{root}/checkpoint_{STEP}",
      str(pathlib.Path(task_gin).parent): f"{root}/task",
      vocabulary_file: f"{root}/vocabulary.model",
    }

    def flags(local):
      for source, target in moved.items():
        local = [flag.replace(source, target) for flag in local]
      return local

    for source, target in moved.items():
      put_tree(source, target)
    gin = files.path(f"{root}/task/task.gin")
    files.write_text(gin, *flags([gin.read_text()]))
    return flags, root

  return put


@pytest.fixture(scope="module")
def trained(in_bucket, train_flags):
  """A run in a bucket whose server fails again and again, once for each."""
  runs = {}

  def train(bucket):
    if bucket not in runs:
      flags, root = in_bucket(bucket)
      more = (*BANK, "--gin.train.tensorboard=True")
      with bucket.proxy.failing(FAILS[bucket.url[:2]]):
        shown = command("train", *flags(train_flags(f"{root}/run", *more)))
      runs[bucket] = flags, root, shown
    return runs[bucket]

  return train


def test_a_run_has_the_bytes_of_one_on_a_disk(bucket, trained, finished):
  _, root, shown = trained(bucket)
  there = get_tree(f"{root}/run")
  events = {name for name in there if "/events.out.tfevents" in name}
  assert {name.rpartition("/")[0] for name in events} == {
    "tensorboard/run_0",
    "tensorboard/run_1",
  }
  on_disk = {
    path.relative_to(finished).as_posix(): path.read_bytes()
    for path in finished.rglob("*")
    if path.is_file()
  }
  assert there.keys() - events == on_disk.keys()
  assert same(there) == same(on_disk)
  assert f"{root}/run/summary.txt" in shown
  answered = [r for r in bucket.proxy.requests if r[2] == 503]
  assert len(answered) > 2


def test_every_other_command(bucket, trained, common_flags, tiny_checkpoint):
  flags, root, _ = trained(bucket)
  run, model = f"{root}/run", f"{root}/checkpoint_{STEP}"

  shown = command(
    "eval",
    *flags(common_flags("prompt_eval")),
    f"--gin.CHECKPOINT_PATH='{model}'",
    f"--gin.PROMPT_FILE='{run}'",
    f"--gin.EVAL_OUTPUT_DIR='{root}/eval'",
    "--gin.EVALUATE_BY='rank'",
    "--gin.EVALUATOR_NUM_EXAMPLES=4",
  )
  assert "seed1" in shown
  names = {
    name.split("/")[-1].split("-")[-1] for name in get_tree(f"{root}/eval")
  }
  assert "metrics.jsonl" in names
  assert any(name.endswith(".COMPLETED") for name in names)

  exported = f"{root}/exported"
  assert f"{exported}/seed0/delta: written" in command("export", run, exported)
  ours, theirs = (get_tree(f"{f}/seed1") for f in (exported, f"{run}/exports"))
  assert same(ours) == same(theirs)
  assert ours.keys() == theirs.keys()

  converted = f"{root}/converted"
  command("convert", model, converted, "--to", "hf")
  assert set(get_tree(converted)) == {"config.json", "model.safetensors"}
  assert " 0 different" in command("diff", converted, tiny_checkpoint)
  assert "peft, a prompt" in command("inspect", f"{exported}/seed0/peft")
  assert "seed1" in command("inspect", run)

  seeds = [f"{seed}={run}/exports/{seed}/prompt.npy" for seed in SEEDS]
  shown = command("similar", *seeds, "--out", f"{root}/alike")
  assert "most similar first" in shown
  names = {"similarity.json", "similarity.png"}
  assert set(get_tree(f"{root}/alike")) == names


def test_answers_to_submit(gs):
  root, task = gs.folder(), "taskless_super_glue_cb_v102"
  rows = [{"idx": row, "inputs_pretokenized": "?"} for row in range(250)]
  output = outputs.Output(
    *(f"{root}/answers", task, "predict", {}), outputs.Shard(0, 1)
  )
  output.write(rows, lambda chunk, _: [{"prediction": "neutral"}] * len(chunk))
  command("submit", f"{root}/answers", f"{root}/leaderboard")
  (lines,) = get_tree(f"{root}/leaderboard").values()
  assert lines.count(b'"neutral"') == 250


def test_parts_of_a_sweep_share_a_folder(gs, trained, train_flags, tolerance):
  """Each as a host of its own would do it; then one makes the report."""
  flags, root, _ = trained(gs)
  words = flags(train_flags(f"{root}/sweep", "--gin.EVAL_STEPS=20"))
  words = ["sweep", *words, "--axis=SEEDS=0, 1"]
  with without_pictures():
    for part in ("0/2", "1/2"):
      command(*words, f"--shard={part}")
    shown = command(*words, "--report")
  assert f"{root}/sweep/report/table.md" in shown
  there = get_tree(f"{root}/sweep")
  cells = {f"cells/SEEDS={seed}" for seed in range(2)}
  assert {name.rpartition("/")[0] for name in there if "cell.json" in name} == (
    cells
  )
  assert not [name for name in there if "writer" in name or "banks/" in name]
  assert json.loads(there["report/results.json"])
  # A cell has the prompt of a run of two seeds.
  ours, theirs = (
    np.load(io.BytesIO(files.path(f"{root}/{name}/prompt.npy").read_bytes()))
    for name in (
      "sweep/cells/SEEDS=0/exports/speaks_of_a_cat",
      "run/exports/seed0",
    )
  )
  np.testing.assert_allclose(ours, theirs, **tolerance["order"])


def test_a_complete_conversion_is_not_replaced_and_a_half_one_is(
  gs, trained, capsys
):
  _, root, _ = trained(gs)
  prompt = f"{root}/run/exports/seed0/prompt.npy"
  target = f"{root}/adapter"
  words = ["convert", prompt, target, "--to", "peft"]
  command(*words)
  assert main.main(words) == 2
  assert "something already there" in capsys.readouterr().err
  whole = get_tree(target)
  files.remove(f"{target}/adapter_config.json")
  files.write_text(f"{target}/thesis.tex", "years of work")
  assert main.main(words) == 2
  assert "thesis.tex" in capsys.readouterr().err
  files.remove(f"{target}/thesis.tex")
  command(*words)
  assert get_tree(target) == whole


def test_answers_go_on_where_a_kill_left_them(
  bucket, trained, common_flags, monkeypatch
):
  """One object for a chunk; the whole file in the end."""
  flags, root, _ = trained(bucket)
  inputs = f"{root}/questions.txt"
  files.write_text(inputs, "".join(f"text: a cat {n}\n" for n in range(10)))

  def infer(folder):
    return command(
      "infer",
      *flags(common_flags("prompt_infer")),
      f"--gin.CHECKPOINT_PATH='{root}/checkpoint_{STEP}'",
      f"--gin.PROMPT_FILE='{root}/run/exports/seed0/delta'",
      f"--gin.INFER_OUTPUT_DIR='{folder}'",
      f"--gin.INPUT_FILE='{inputs}'",
      "--gin.MIXTURE_OR_TASK_NAME=None",
      "--gin.MAX_DECODE_LENGTH=3",
      "--gin.BATCH_SIZE=2",
      "--gin.CHECKPOINT_PERIOD=1",
    )

  name = "questions-predict.jsonl-00000-of-00001"
  assert f"{root}/whole/{name}" in infer(f"{root}/whole")
  whole = get_tree(f"{root}/whole")
  assert set(whole) == {name, f"{name}.COMPLETED"}

  chunks = []
  put = object_store.put

  def dies(url, data):
    if ".partial/" in str(url):
      if len(chunks) == 3:
        raise KeyboardInterrupt
      chunks.append(url.name)
    put(url, data)

  with monkeypatch.context() as patch:
    patch.setattr(object_store, "put", dies)
    with pytest.raises(AssertionError):  # of the status
      infer(f"{root}/killed")
  assert set(get_tree(f"{root}/killed")) == {
    f"{name}.settings",
    *(f"{name}.partial/{chunk}" for chunk in chunks),
  }
  infer(f"{root}/killed")
  assert get_tree(f"{root}/killed") == whole


def test_two_trainings_in_one_folder(bucket, trained, train_flags, capsys):
  flags, root, _ = trained(bucket)
  about = {**sole_writer._about(), "pid": 1, "started": None}
  about |= {"started": sole_writer._started(1)}
  path = f"{root}/run/{sole_writer.FILE}"
  files.write_text(path, json.dumps(about))
  try:
    words = flags(train_flags(f"{root}/run", *BANK))
    assert main.main(["train", *words]) == 2
    assert (
      f"MODEL_DIR {root}/run is in use: process 1" in capsys.readouterr().err
    )
  finally:
    files.remove(path)


@pytest.mark.parametrize(
  ("setting", "value", "expected"),
  [
    (
      "MODEL_DIR",
      "gs://another/run",
      "MODEL_DIR gs://another/run cannot be written to: there is no bucket "
      "'another'. Check its name, or make it.\n",
    ),
    ("TOKEN_CACHE_DIR", "gs://bucket/x", "expected a folder on this machine"),
    ("MODEL_DIR", "hdfs://name/run", "MODEL_DIR cannot be written to: hdfs://"),
  ],
)
def test_paths_that_will_not_do(
  setting, value, expected, gs, train_flags, tmp_path, capsys
):
  words = train_flags(tmp_path / "run", f"--gin.{setting}='{value}'")
  assert main.main(["train", *words]) == 2
  shown = capsys.readouterr().err
  assert expected in shown
  assert [line for line in shown.splitlines() if line[:8] != "warning:"] == [
    shown.splitlines()[-1]
  ]
