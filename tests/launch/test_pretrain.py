"""`prompt-tuning pretrain` on a tiny model, from text to what others load."""

import contextlib
import dataclasses
import functools
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from prompt_tuning.checkpoints import backbone, bundle, restore
from prompt_tuning.core import axes, tree
from prompt_tuning.data import corpus, denoising, spec
from prompt_tuning.jobs import pretrain_job, pretrain_report, train
from prompt_tuning.launch import main
from prompt_tuning.models.t5 import cost, network
from prompt_tuning.models.t5.config import T5Config
from prompt_tuning.train import logs, loop
from tests.failing_files import Disk, full_disk
from tests.invented_corpus import ROWS, VOCABULARY_SIZE

MODEL = T5Config(
  vocab_size=ROWS,
  emb_dim=8,
  num_heads=2,
  head_dim=4,
  mlp_dim=16,
  num_encoder_layers=1,
  num_decoder_layers=1,
)
# Steps of a stage; steps behind the model that a stage ends with.
STEPS = 6
STAGES = {"span_corruption": STEPS, "lm_adaptation": 2 * STEPS}
FIELDS = "vocab_size emb_dim num_heads head_dim mlp_dim num_encoder_layers"
GIN = "\n".join(
  [
    "MODEL = @models.T5Config()",
    *(
      f"models.T5Config.{field} = {getattr(MODEL, field)}"
      for field in [*FIELDS.split(), "num_decoder_layers"]
    ),
    "CORPORA = (@corpora.Text(), @corpora.Skills())",
    "corpora.Text.name = 'invented'",
    "corpora.Skills.count = 20",
    "pretraining.Stage.packed_lengths = {'inputs': 128, 'targets': 128}",
    f"SPAN_CORRUPTION_STEPS = {STEPS}",
    f"LM_ADAPTATION_STEPS = {STEPS}",
    "BATCH_SIZE = 4",
    "CHUNK_LENGTH = 40",
    "LEARNING_RATE = 0.02",
    "WARMUP_STEPS = 2",
    "EVAL_PERIOD = 4",
    "EVAL_STEPS = 2",
    "CHECKPOINT_PERIOD = 3",
    "LOG_PERIOD = 2",
    "pretrain.num_continuations = 4",
    "pretrain.progress_bar = False",
    "pretrain.tensorboard = False",
  ]
)


@pytest.fixture(scope="module", autouse=True)
def known_tasks():
  """Tasks of these tests are nobody else's."""
  known = dict(spec._specs)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(spec, "_specs", dict(known))
    patch.setattr(corpus, "_corpora", {})
    yield known


@pytest.fixture(autouse=True)
def _new_process(known_tasks, monkeypatch):
  """Every test knows the tasks that a new process does."""
  monkeypatch.setattr(spec, "_specs", dict(known_tasks))


@pytest.fixture(scope="module")
def flags(tmp_path_factory, invented_vocabulary, invented_files):
  """The command line; MODEL_DIR is `run`, wherever one is."""
  folder = tmp_path_factory.mktemp("pretraining")
  (folder / "tiny.gin").write_text(GIN)
  words = [
    "--gin_file=models/ladder_1.gin",
    "--gin_file=runs/pretrain.gin",
    "--gin_file=meshes/single.gin",
    f"--gin_file={folder}/tiny.gin",
    "--gin.MODEL_DIR='run'",
    f"--gin.VOCABULARY_FILE='{invented_vocabulary}'",
    f"--gin.corpora.Text.files={invented_files!r}",
    f"--gin.TOKEN_CACHE_DIR='{folder}/tokens'",
  ]
  return lambda *more: [*words, *more]


def run(argv):
  return main.main(["pretrain", *argv])


@pytest.fixture(scope="module")
def finished(tmp_path_factory, flags):
  """A run that nothing disturbed."""
  folder = tmp_path_factory.mktemp("finished")
  with contextlib.chdir(folder):
    assert run(flags()) == 0
  return folder / "run"


def files(folder):
  """Every file, by relative path; without what tells the time."""
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file() and path.name not in ("metrics.jsonl", "stage.json")
  }


def reports(folder):
  """The stages' reports, without what differs from time to time."""
  found = []
  for stage in STAGES:
    report = json.loads((folder / stage / "stage.json").read_text())
    for name in ("seconds", "tokens_per_second", "flops_per_second"):
      assert report.pop(name) > 0
    found.append(report)
  return found


def assert_same(folder, finished):
  assert files(folder).keys() == files(finished).keys()
  for name, data in files(finished).items():
    assert (folder / name).read_bytes() == data, name
  assert reports(folder) == reports(finished)


def test_what_a_run_leaves_behind(finished, invented_vocabulary):
  assert set(os.listdir(finished)) == {
    *STAGES,
    "config.gin",
    "operative_config.gin",
    "sentencepiece.model",
  }
  vocabulary = pathlib.Path(invented_vocabulary).read_bytes()
  assert (finished / "sentencepiece.model").read_bytes() == vocabulary
  assert "CHUNK_LENGTH = 40" in (finished / "config.gin").read_text()
  for stage, steps in STAGES.items():
    assert set(os.listdir(finished / stage)) == {
      "bundles",
      f"checkpoint_{steps}",
      "config.gin",
      "hf",
      "metrics.jsonl",
      "operative_config.gin",
      "stage.json",
    }
    assert len(bundle.steps(finished / stage / "bundles")) == 1


def test_the_loss_on_held_out_text_falls(finished):
  for report in reports(finished):
    assert set(report["held_out"]) == {
      f"invented_{o}" for o in [report["objective"]]
    } | {f"skills_{report['objective']}"}
    for losses in report["held_out"].values():
      assert [step for step, _ in losses] == [0, 4, 6]
    text = report["held_out"][f"invented_{report['objective']}"]
    assert text[-1][1] < text[0][1] - 0.2


def test_what_a_report_says(finished):
  leaves = tree.flatten(network.abstract_params(MODEL)).items()
  size = {path: math.prod(leaf.shape) for path, leaf in leaves}
  outside = sum(
    count
    for path, count in size.items()
    if "token_embedder" in path or "logits_dense" in path
  )
  for stage in STAGES:
    report = json.loads((finished / stage / "stage.json").read_text())
    lines = [x for x in logs.read(finished / stage) if "train/loss" in x]
    assert [x["step"] for x in lines] == [2, 4, 6]
    seconds = [x["train/timing/seconds"] for x in lines]
    targets = sum(
      s * x["train/timing/target_tokens_per_second"]
      for s, x in zip(seconds, lines, strict=True)
    )
    assert report["stage"] == stage
    assert report["steps"] == STEPS
    assert report["parameters"] == sum(size.values())
    assert report["non_embedding_parameters"] == sum(size.values()) - outside
    assert report["decoder_tokens"] == pytest.approx(targets)
    # Rows of 4 x 128 positions, packed but not wholly filled.
    assert 0.5 < report["encoder_tokens"] / (STEPS * 4 * 128) <= 1
    tokens = report["encoder_tokens"] + report["decoder_tokens"]
    assert report["seconds"] == pytest.approx(sum(seconds))
    assert report["tokens_per_second"] == pytest.approx(tokens / sum(seconds))
    assert 0 <= report["sentinel_share"] <= 1
    assert report["hardware"].endswith(")")


def test_exports_are_the_last_bundle_in_both_layouts(finished):
  for stage, steps in STAGES.items():
    folder = finished / stage
    _, last = bundle.read_latest(folder / "bundles")
    ours = {
      path.removeprefix("model/"): array[0]
      for path, array in last.trainable.items()
    }
    assert ours.keys() == tree.flatten(network.abstract_params(MODEL)).keys()
    native = restore.open_checkpoint(folder / f"checkpoint_{steps}")
    assert native.step == steps
    for opened in (native, restore.open_checkpoint(folder / "hf")):
      assert opened.params.keys() == ours.keys()
      for path, array in ours.items():
        np.testing.assert_array_equal(opened.params[path].read(), array)


@pytest.mark.parity
def test_hugging_face_computes_the_same(finished, make_batch, tolerance):
  torch = pytest.importorskip("torch", reason="parity needs the test extra")
  transformers = pytest.importorskip("transformers")
  folder = finished / "lm_adaptation"
  theirs = transformers.T5ForConditionalGeneration.from_pretrained(
    folder / "hf"
  )
  encoder, target = make_batch(MODEL)
  inputs = np.pad(target[:, :-1], ((0, 0), (1, 0)))
  with torch.no_grad():
    expected = theirs.eval()(
      input_ids=torch.tensor(encoder),
      attention_mask=torch.tensor(encoder != 0),
      decoder_input_ids=torch.tensor(inputs),
    ).logits.numpy()
  checkpoint = str(folder / f"checkpoint_{STAGES['lm_adaptation']}")
  model = backbone.load(checkpoint, MODEL, None, axes.STANDARD_RULES, "float32")
  batch = {
    "encoder_input_tokens": encoder,
    "decoder_input_tokens": inputs,
    "decoder_target_tokens": target,
  }
  logits = jax.jit(network.T5(MODEL).apply)({"params": model.params}, batch)
  np.testing.assert_allclose(logits, expected, **tolerance["parity"])


def test_a_second_call_does_nothing_new(finished, flags, capsys, monkeypatch):
  monkeypatch.setattr(train, "train", None)
  before = {p: p.stat().st_mtime_ns for p in finished.glob("*/**/*")}
  monkeypatch.chdir(finished.parent)
  assert run(flags()) == 0
  assert {p: p.stat().st_mtime_ns for p in finished.glob("*/**/*")} == before
  table = capsys.readouterr().out.splitlines()
  assert table[0].startswith("5,816 parameters, 1,720 without")
  assert table[1].startswith("span_corruption: 6 steps, ")
  assert "GFLOP/s" in table[1]
  assert sum(" -> " in line for line in table) == 4
  assert sum("continuations with a sentinel: " in line for line in table) == 2


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ("SPAN_CORRUPTION_STEPS=9", "steps: the bundle has 6, this run 9"),
    ("RANDOM_SEED=1", "seed: the bundle has 0, this run 1"),
    ("corpora.Text.rate=2.0", "tasks[0][1]: the bundle has 1.0, this run 2"),
    ("SAVE_DTYPE='bfloat16'", "save_dtype: the bundle has 'float32'"),
    ("models.T5Config.mlp_dim=24", "mlp_dim: the bundle has"),
    (
      "lm_adaptation/pretraining.Stage.learning_rate=0.1",
      "lm_adaptation holds",
    ),
  ],
)
def test_another_run_in_the_same_folder_is_refused(
  change, message, finished, flags, capsys, monkeypatch
):
  monkeypatch.chdir(finished.parent)
  before = files(finished)
  assert run(flags(f"--gin.{change}")) == 2
  error = capsys.readouterr().err
  assert "holds another run; choose another MODEL_DIR" in error
  assert message in error
  assert files(finished) == before


def test_sigkill_in_the_middle_changes_no_byte(
  finished, flags, tmp_path, monkeypatch
):
  """A process of its own is killed; the same command goes on."""
  process = subprocess.Popen(
    [sys.executable, "-m", "prompt_tuning.launch.main", "pretrain", *flags()],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    cwd=tmp_path,
  )
  folder = tmp_path / "run"
  while process.poll() is None and not list(folder.glob("*/bundles/step_*")):
    time.sleep(0.002)
  process.kill()
  output, _ = process.communicate(timeout=60)
  assert process.returncode == -signal.SIGKILL, output.decode()
  assert not list(folder.glob("*/stage.json"))
  monkeypatch.chdir(tmp_path)
  assert run(flags()) == 0
  assert_same(folder, finished)


def at_call(number, function, action):
  """Wrap a function: before its so-manyth call, something happens."""
  calls = [0]

  def wrapped(*args, **kwargs):
    calls[0] += 1
    if calls[0] == number:
      action()
    return function(*args, **kwargs)

  return wrapped


def ask_to_stop():
  os.kill(os.getpid(), signal.SIGTERM)


def test_full_disks_and_preemptions_lose_nothing(
  finished, flags, tmp_path, monkeypatch, capsys
):
  """One run that ends in every bad way, each time a bit further on."""
  monkeypatch.chdir(tmp_path)
  folder = tmp_path / "run"
  spans, adaptation = (folder / stage for stage in STAGES)

  def ends(prepare, status, message):
    with monkeypatch.context() as patch:
      prepare(patch)
      assert run(flags()) == status
    output = capsys.readouterr()
    assert message in output.err + output.out
    assert not [p for p in folder.rglob("*") if ".tmp" in p.name]

  def full_at(part):
    def fails(_, name, path):
      return name == "_flush" and part in str(path) and full_disk()

    ends(lambda patch: Disk(patch, fails), 2, "No space left")

  def stopped_in(step):
    stopping = at_call(step, loop._add_tokens, ask_to_stop)
    ends(
      lambda patch: patch.setattr(loop, "_add_tokens", stopping),
      143,
      " by SIGTERM. The same command continues it.",
    )

  full_at("step_00000006")
  assert bundle.steps(spans / "bundles") == [3]
  stopped_in(2)
  assert bundle.steps(spans / "bundles") == [5]
  full_at("/hf.tmp-")
  assert (spans / "checkpoint_6").is_dir()
  assert not (spans / "hf").exists()
  full_at("stage.json")
  assert (spans / "hf").is_dir()
  assert not (spans / "stage.json").exists()
  stopped_in(1)
  assert (spans / "stage.json").is_file()
  assert bundle.steps(adaptation / "bundles") == [1]
  assert not (folder / "sentencepiece.model").exists()
  assert run(flags()) == 0
  assert_same(folder, finished)


def test_a_model_goes_on_from_another(finished, flags, tmp_path, monkeypatch):
  """The second stage alone, on the first one's model, is as in the whole."""
  monkeypatch.chdir(tmp_path)
  start = finished / "span_corruption" / "checkpoint_6"
  argv = flags(
    f"--gin.INITIAL_CHECKPOINT_PATH='{start}'",
    "--gin.STAGES=(@lm_adaptation/pretraining.Stage(),)",
    "--gin.pretrain.num_continuations=0",
  )
  assert run(argv) == 0
  folder, whole = (f / "lm_adaptation" for f in (tmp_path / "run", finished))
  ours, theirs = (bundle.read_latest(f / "bundles")[1] for f in (folder, whole))
  for name, array in theirs.trainable.items():
    np.testing.assert_array_equal(ours.trainable[name], array)
  assert restore.open_checkpoint(folder / "checkpoint_6").step == 6
  report = json.loads((folder / "stage.json").read_text())
  assert report["sentinel_share"] is None
  text = pretrain_report.table([report])
  assert "sentinel" not in text
  assert text.count("held-out loss, ") == 2


@pytest.fixture
def job(invented_vocabulary, invented_files, tmp_path):
  """A single step of adaptation, from code, without gin."""
  stage = pretrain_job.Stage(
    "more",
    corpus.Denoising("prefix_lm", chunk_length=40),
    steps=1,
    batch_size=4,
    packed_lengths={"inputs": 128, "targets": 128},
    learning_rate=0.02,
  )
  return pretrain_job.PretrainJob(
    str(tmp_path / "run"),
    MODEL,
    corpora=(corpus.Text("invented", invented_files),),
    stages=(stage,),
    vocabulary_file=invented_vocabulary,
    cache_dir=str(tmp_path / "tokens"),
  )


def test_rows_have_room_for_what_running_text_becomes(job, invented_vocabulary):
  """And nothing is read before that is known."""
  (stage,) = job.stages
  tokens = np.arange(100, 140)
  pairs = [denoising.cut(tokens, key) for key in range(300)]
  longest = [
    max(len(row) for row in rows) + 1 for rows in zip(*pairs, strict=True)
  ]
  assert tuple(longest) == stage.denoising.longest == (40, 40)
  with pytest.raises(ValueError, match=r"CHUNK_LENGTH 40 .*\. Raise PACKED"):
    dataclasses.replace(stage, packed_lengths={"inputs": 128, "targets": 39})
  spans = corpus.Denoising(chunk_length=40)
  inputs, targets = denoising.corrupt_spans(tokens, int, 0.15, 3.0)
  assert spans.longest == (len(inputs) + 1, len(targets) + 1)


def test_steps_that_were_not_logged_were_as_fast_as_the_others(job):
  """6 s for 400 tokens are in the log, and 200 more tokens were trained on."""
  (stage,) = job.stages
  folder = job.folder(stage)
  log = logs.MetricsLog(folder, 1, tensorboard=False)
  for step, seconds, speed in ((2, 2.0, 100.0), (6, 4.0, 50.0)):
    timing = {"timing/seconds": seconds, "timing/tokens_per_second": speed}
    log.write(step, 0, timing, "train")
  result = loop.Result(None, [], "finished", [], (500, 100))
  report = pretrain_report.describe(job, stage, result, 0.25)
  encoder, decoder = cost.flops_per_token(MODEL)
  operations = 500 * encoder + 100 * decoder
  assert report["seconds"] == pytest.approx(9)
  assert report["tokens_per_second"] == pytest.approx(600 / 9)
  assert report["flops_per_second"] == pytest.approx(operations / 9)
  assert report["sentinel_share"] == 0.25
  assert pretrain_report.read(job, stage) is None
  pretrain_report.write(folder, report)
  assert pretrain_report.read(job, stage) == report


def bad_files(name, content):
  """Flags for a corpus that is a file of its own in the current folder."""
  pathlib.Path(name).write_bytes(content)
  return [
    "--gin.CORPORA=(@corpora.Text(),)",
    f"--gin.corpora.Text.name='{pathlib.Path(name).stem}'",
    f"--gin.corpora.Text.files={{'train': '{name}'}}",
  ]


ADAPTATION = "--gin.lm_adaptation/pretraining.Stage"


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (["empty.txt", b""], "empty.txt: the corpus is empty"),
    (["zeros.txt", b"some text\n\n\0\0\0"], "zeros.txt:3: the line has a zero"),
    (
      ["latin.txt", b"caf\xe9"],
      "latin.txt:1: not UTF-8: byte 0xe9 at position 3",
    ),
    (["few.txt", b"the cat sees the dog ."], "shorter than a batch of 4 rows"),
    (["wrong.csv", b"text"], "wrong.csv: expected a file name that ends in"),
    (
      ["--gin.corpora.Text.files={'train': 'nowhere.txt'}"],
      "No corpus file nowhere.txt",
    ),
    (
      ["--gin.corpora.Text.name='skills'"],
      "CORPORA are skills, skills; expected",
    ),
    (
      ["--gin.models.T5Config.vocab_size=128"],
      f"{VOCABULARY_SIZE} ids, sentinels included, and the model's embedding "
      "table has 128 rows",
    ),
    (["--gin.VOCABULARY_FILE='nowhere.model'"], "No vocabulary file nowhere"),
    (
      ["--gin.CHUNK_LENGTH=2048"],
      "102 noise spans, but there are 100 sentinels; lower CHUNK_LENGTH",
    ),
    (
      # Of the second stage: nobody wants to hear it after the first.
      [f"{ADAPTATION}.packed_lengths={{'inputs': 128, 'targets': 16}}"],
      "Raise PACKED_LENGTHS, or lower CHUNK_LENGTH",
    ),
    ([f"{ADAPTATION}.packed_lengths={{'inputs': 9}}"], "PACKED_LENGTHS names"),
    ([f"{ADAPTATION}.batch_size=4096"], "lm_adaptation: the corpora are short"),
    (["--gin_file=meshes/data.gin"], "cannot be split over 8 data-parallel"),
    (["--gin.STAGES=()"], "STAGES are none; expected at least one"),
    ([f"{ADAPTATION}.steps=0"], "lm_adaptation: 0 steps; expected at least"),
    (["--gin.MODEL_DIR='/dev/null/run'"], "MODEL_DIR cannot be written to"),
    (
      ["--gin.INITIAL_CHECKPOINT_PATH='nowhere'"],
      "nowhere",
    ),
    (["--gin.MASK=1"], "no parsed file declares or uses the macro MASK"),
  ],
)
def test_bad_input_stops_before_the_first_step(
  changes, message, flags, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  if isinstance(changes[-1], bytes):
    changes = bad_files(*changes)
  assert run(flags(*changes)) == 2
  assert message in capsys.readouterr().err
  assert not list(tmp_path.glob("run/**/*"))


def test_a_checkpoint_of_another_model(
  finished, flags, capsys, monkeypatch, tmp_path
):
  monkeypatch.chdir(tmp_path)
  path = finished / "span_corruption" / "checkpoint_6"
  argv = flags(f"--gin.INITIAL_CHECKPOINT_PATH='{path}'")
  assert run([*argv, "--gin.models.T5Config.mlp_dim=24"]) == 2
  assert "mlp/wi_0/kernel" in capsys.readouterr().err
  assert not list(tmp_path.glob("run/**/*"))


def test_dry_run_writes_nothing(flags, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  assert run(flags("--dry_run")) == 0
  assert "pretrain.model = %MODEL" in capsys.readouterr().out
  assert not os.listdir(tmp_path)


@functools.cache
def weights(seed=0, ways=None, scale=1.0):
  """Draw a model, perhaps on a mesh; also its parameters on the host."""
  mesh = axes.make_mesh(*ways) if ways else None
  model = backbone.fresh(MODEL, mesh, axes.STANDARD_RULES, seed, scale)
  assert model.step == 0
  return model, bundle.to_host(tree.flatten(model.params))


def test_random_weights_follow_the_seed_alone():
  model, first = weights()
  other, second = weights(seed=1)
  split, third = weights(ways=(4, 2))
  assert model.fingerprint == split.fingerprint != other.fingerprint
  for path, array in first.items():
    np.testing.assert_array_equal(third[path], array)
    constant = np.ptp(array) == 0
    assert np.array_equal(second[path], array) == constant, path
  table = split.params["token_embedder"]["embedding"]
  assert not table.is_fully_replicated


def test_random_weights_are_t5s_but_for_the_positions(tolerance):
  _, plain = weights()
  _, scaled = weights(scale=8.0)
  draw = jax.jit(lambda key: network.init_params(MODEL, key))
  for path, array in tree.flatten(draw(jax.random.key(0))).items():
    factor = 8 if "relpos_bias" in path else 1
    np.testing.assert_allclose(plain[path], array, **tolerance["same"])
    np.testing.assert_allclose(
      scaled[path], factor * array, **tolerance["same"]
    )
