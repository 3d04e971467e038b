"""`prompt-tuning train` on a tiny model, from flags to what lies on disk."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from prompt_tuning.checkpoints import backbone, bundle, restore
from prompt_tuning.data import cache, spec
from prompt_tuning.launch import main
from prompt_tuning.train import logs

STEP = 1_100_000
WEIGHT = "tuner/encoder/prompt/prompt/prompt"


def run(argv):
  return main.main(["train", *argv])


def test_what_a_run_leaves_behind(finished):
  names = {path.name for path in finished.iterdir()}
  assert names == {
    "best",
    "bundles",
    "config.gin",
    "exports",
    "inference_eval",
    "learning_curve.png",
    "metrics.jsonl",
    "operative_config.gin",
    "summary.txt",
  }
  assert (finished / "learning_curve.png").read_bytes()[:4] == b"\x89PNG"
  assert "SEEDS = (0, 1)" in (finished / "config.gin").read_text()


def test_the_summary_shows_runs_controls_and_frozen_weights(finished):
  text = (finished / "summary.txt").read_text()
  table = text.split("\n\n")[0].splitlines()
  assert table[0] == "speaks_of_a_cat"
  first = [line.split()[0] for line in table[3:]]
  assert first == ["seed0", "seed1", "mean", "frozen", "random"]
  assert f"{STEP:,}"[:6] in table[3]
  assert re.search(
    r"^train +tuner/encoder/prompt/prompt/prompt +100x4", text, re.M
  )
  assert "freeze: 257,856 of 258,256 parameters" in text
  assert "frozen weights: unchanged (sha256 " in text
  assert "position  norm      nearest tokens (cosine)" in text
  assert "(random vectors: " in text
  assert str(finished / "exports" / "seed1" / "prompt.npy") in text


def test_exports_are_the_best_bundles(finished):
  for k in (0, 1):
    folder = finished / "best" / f"run_{k}"
    (step,) = bundle.steps(folder)
    best = bundle.read(bundle.step_path(folder, step))
    (vectors,) = best.trainable[WEIGHT]
    exported = np.load(finished / "exports" / f"seed{k}" / "prompt.npy")
    np.testing.assert_array_equal(exported, vectors)
    adapter = restore.open_prompt(finished / "exports" / f"seed{k}" / "peft")
    np.testing.assert_array_equal(adapter.values, vectors)


def test_seeds_differ(finished):
  _, last = bundle.read_latest(finished / "bundles")
  assert last.trainable[WEIGHT].shape == (2, 100, 4)
  assert not np.array_equal(*last.trainable[WEIGHT])


def test_logs_have_t5xs_tags_and_steps(finished):
  entries = logs.read(finished)
  tags = {tag for entry in entries for tag in entry}
  task = "speaks_of_a_cat"
  assert {
    "train/loss",
    "train/timing/steps_per_second",
    f"inference_eval/{task}/accuracy",
    f"training_eval/{task}/loss",
  } <= tags
  assert {entry["step"] for entry in entries} == {STEP + 2, STEP + 4}


def test_predictions_are_written_as_seqio_does(finished):
  """At every evaluation, so that a run that stops has those before too."""
  folder = finished / "inference_eval" / "seed0"
  (metrics,) = folder.glob("*-metrics.jsonl")
  lines = list(map(json.loads, metrics.read_text().splitlines()))
  assert [line["step"] for line in lines] == [STEP + 2, STEP + 4]
  logged = [
    entry["inference_eval/speaks_of_a_cat/accuracy"]
    for entry in logs.read(finished)
    if entry["run"] == 0 and "inference_eval/speaks_of_a_cat/accuracy" in entry
  ]
  assert [line["accuracy"] for line in lines] == logged
  for line in lines:
    path = folder / f"speaks_of_a_cat-{line['step']}.jsonl"
    rows = list(map(json.loads, path.read_text().splitlines()))
    assert len(rows) == 4
    assert {"input", "target", "rank_prediction"} <= rows[0].keys()
    correct = sum(
      ("no", "yes")[row["target"]] == row["rank_prediction"] for row in rows
    )
    assert line["accuracy"] == 25 * correct


def test_bundles_say_how_they_were_made(finished):
  best = finished / "best" / "run_1"
  _, last = bundle.read_latest(finished / "bundles")
  _, kept = bundle.read_latest(best)
  for saved in (last, kept):
    texts = saved.manifest["gin"]
    assert texts.keys() == {"config.gin", "operative_config.gin"}
    for name, text in texts.items():
      assert text == (finished / name).read_text()
    assert saved.manifest["versions"]["jax"] == jax.__version__


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path, train_flags, capsys):
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  short = "--gin.PROMPT_LENGTH=3"
  assert run(train_flags(whole, short)) == 0
  assert run(train_flags(parts, short, f"--gin.TRAIN_STEPS={STEP + 2}")) == 0
  capsys.readouterr()
  assert run(train_flags(parts, short)) == 0
  begins = f"{parts} goes on from step {STEP + 2:,} (2 of 4).\n"
  assert capsys.readouterr().err == begins
  a, b = (bundle.read_latest(p / "bundles")[1] for p in (whole, parts))
  told = [dict(saved.manifest) for saved in (a, b)]
  texts = [str(manifest.pop("gin")) for manifest in told]
  for manifest in told:
    del manifest["digest"]
  assert told[0] == told[1]
  assert texts[0] == texts[1].replace(str(parts), str(whole))
  for ours, theirs in ((a.trainable, b.trainable), (a.resume, b.resume)):
    assert ours.keys() == theirs.keys()
    for name in ours:
      assert ours[name].tobytes() == theirs[name].tobytes(), name


def test_another_run_in_the_same_folder_is_refused(
  finished, train_flags, capsys
):
  config = (finished / "config.gin").read_bytes()
  flags = train_flags(finished, "--gin.SEEDS=(0, 2)", "--gin.CONTROLS=True")
  assert run(flags) == 2
  printed = capsys.readouterr()
  assert printed.err == (
    f"error: {finished} holds another run; choose another MODEL_DIR, or "
    "restore its settings:\n"
    "  runs[1].name: the bundle has 'seed1', this run 'seed2'\n"
    "  runs[1].seed: the bundle has 1, this run 2\n"
  ), "what is the same is not said"
  assert not printed.out
  assert (finished / "config.gin").read_bytes() == config


def test_a_vocabulary_that_changed_is_named(
  finished, train_flags, other_vocabulary_file, capsys
):
  other = f"--gin.VOCABULARY_FILE='{other_vocabulary_file}'"
  assert run(train_flags(finished, "--gin.SEEDS=(0, 1)", other)) == 2
  lines = capsys.readouterr().err.splitlines()
  (line,) = [line for line in lines if line.startswith("  ")]
  assert line.startswith(
    "  vocabulary: the bundle has 'embedded:ladder_1' (4,096 ids, sha256 "
  )
  assert f"VOCABULARY_FILE is '{other_vocabulary_file}' (4,096 ids" in line


def test_more_runs_than_there_were(finished, train_flags, capsys):
  flags = train_flags(finished, "--gin.SEEDS=(0, 1, 2)")
  assert run([*flags, "--gin.PROMPT_LENGTH=3"]) == 2
  lines = capsys.readouterr().err.splitlines()[1:]
  assert lines == [
    "  number of runs: the bundle has 2, this run 3",
    "  number of tuners: the bundle has 2, this run 3",
    *(
      f"  tuners[{k}].encoder_length: the bundle has 100, this run 3"
      for k in (0, 1)
    ),
  ]


def test_rows_that_changed_are_found_before_the_model_is_read(
  finished, train_flags, tmp_path, capsys, monkeypatch
):
  monkeypatch.setattr(cache, "_fingerprint", lambda *_: "made anew")
  monkeypatch.setattr(backbone, "load", None)
  more = ("--gin.SEEDS=(0, 1)", f"--gin.TOKEN_CACHE_DIR='{tmp_path}'")
  assert run(train_flags(finished, *more)) == 2
  message = capsys.readouterr().err
  assert "holds a run on other rows of speaks_of_a_cat: " in message


def test_a_file_that_changed_is_named(
  finished, train_flags, task_gin, tmp_path, capsys, monkeypatch
):
  """As is the template, by its own name."""
  monkeypatch.setattr(spec, "_specs", {})
  text = pathlib.Path(task_gin).read_text().replace("text: {", "a text: {")
  old = re.search(r'"(\S*)/train.jsonl"', text)[1]
  for split in ("train", "validation"):
    rows = pathlib.Path(old, f"{split}.jsonl").read_text()
    more = '\n{"text": "cat", "label": "yes"}' if split == "train" else ""
    (tmp_path / f"{split}.jsonl").write_text(rows + more)
  (tmp_path / "task.gin").write_text(text.replace(old, str(tmp_path)))
  flags = train_flags(finished, "--gin.SEEDS=(0, 1)")
  assert run([*flags, f"--gin_file={tmp_path / 'task.gin'}"]) == 2
  task = "tasks.speaks_of_a_cat.content"
  assert capsys.readouterr().err.splitlines()[1:] == [
    f"  {task}.sha256.train: {tmp_path}/train.jsonl has changed since the "
    "bundle was written",
    f"  {task}.template: the bundle has 'text: {{text}}', this run "
    "'a text: {text}'",
  ]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (
      "--gin.EVALUATOR_NUM_EXAMPLES=3",
      "evaluation.num_examples: the bundle has 4, this run 3",
    ),
    ("--gin.EVALUATE_BY='generation'", "evaluation.by[0]: the bundle has 'ra"),
    (
      "--gin.train.keep_best=False",
      "evaluation.keep_best: the bundle has True",
    ),
    ("--gin.train.evaluation=None", "this run None"),
  ],
)
def test_scores_that_cannot_be_compared_are_refused(
  change, message, finished, train_flags, capsys
):
  flags = train_flags(finished, "--gin.SEEDS=(0, 1)", change)
  assert run(flags) == 2
  assert message in capsys.readouterr().err


def test_a_bank_is_named_by_what_differs(tmp_path, train_flags, capsys):
  flags = train_flags(
    tmp_path / "bank",
    "--gin.SEEDS=(3, 4)",
    "--gin.LEARNING_RATES=(0.3, 0.1)",
    "--gin.PROMPT_LENGTH=2",
    f"--gin.TRAIN_STEPS={STEP + 1}",
  )
  assert run(flags) == 0
  names = [path.name for path in sorted((tmp_path / "bank/exports").iterdir())]
  assert names == ["lr0.1_seed3", "lr0.1_seed4", "lr0.3_seed3", "lr0.3_seed4"]
  text = (tmp_path / "bank" / "summary.txt").read_text()
  assert "lr0.1 mean ± sd" in text
  folder = tmp_path / "bank"
  shown = capsys.readouterr().out
  tokens = [line for line in shown.split("\n") if line.startswith("encoder")]
  assert len(tokens) == 4, "a line per run"
  # Scores come last, and where everything is.
  _, end = shown.split("\n\nspeaks_of_a_cat\n")
  assert end.count("±") == 2 * 3, "of two rates, and two metrics"
  assert end.endswith(
    f"\n\neverything above, and more: {folder / 'summary.txt'}\n"
    f"learning curve: {folder / 'learning_curve.png'}\n"
    f"exports of 4 runs: {folder / 'exports'}\n"
  )
  assert "lr0.3 mean ± sd" in text


def test_model_tuning_is_the_same_command(tmp_path, train_flags, capsys):
  folder = tmp_path / "model"
  flags = train_flags(
    folder,
    f"--gin.TRAIN_STEPS={STEP + 2}",
    "--gin.SEEDS=(0, 1)",
    run="model_tuning",
    prompt=(),
  )
  assert run(flags) == 0
  out = capsys.readouterr().out
  assert re.search(r"^train +257,856 +100.00% +\d+  float32 ", out, re.M)
  assert not re.search(r"^freeze", out, re.M)
  _, last = bundle.read_latest(folder / "bundles")
  assert last.trainable["model/token_embedder/embedding"].shape[0] == 2
  assert not (folder / "exports").exists()


def test_a_prompt_in_both_stacks(tmp_path, train_flags, capsys):
  folder = tmp_path / "both"
  flags = train_flags(
    folder,
    f"--gin.TRAIN_STEPS={STEP + 1}",
    "--gin.PROMPT_LENGTH=3",
    "--gin.EVALUATE_BY='generation'",
    prompt=(
      "--gin_file=prompts/from_sampled_vocab.gin",
      "--gin_file=prompts/both.gin",
    ),
  )
  assert run(flags) == 0
  out = capsys.readouterr().out
  assert "no adapter: PEFT has virtual tokens before the encoder" in out
  assert re.search(r"^decoder prompt  \d\.\d\d \(\d\.\d\d\)  ", out, re.M)
  whole = (folder / "summary.txt").read_text()
  assert "decoder prompt\nposition" in whole
  for name in ("prompt.npy", "prompt_decoder.npy"):
    path = folder / "exports" / "speaks_of_a_cat" / name
    assert np.load(path).shape == (3, 4)


def test_several_devices_equal_one(tmp_path, train_flags, tolerance):
  """Two slices of 2 data-parallel x 2 model-parallel ways, by command.

  Weights are split over all devices of a slice.
  """
  short = ("--gin.PROMPT_LENGTH=3", f"--gin.TRAIN_STEPS={STEP + 2}")
  one, many = tmp_path / "one", tmp_path / "many"
  assert run(train_flags(one, *short)) == 0
  mesh = (
    *("--gin_file=meshes/fully_sharded.gin", "--gin.MODEL_PARALLEL=2"),
    *("--gin_file=meshes/slices.gin", "--gin.NUM_SLICES=2"),
  )
  assert run(train_flags(many, *short, *mesh)) == 0
  losses = [
    [e["train/loss"] for e in logs.read(folder) if "train/loss" in e]
    for folder in (one, many)
  ]
  np.testing.assert_allclose(*losses, **tolerance["same"])
  a, b = (bundle.read_latest(p / "bundles")[1].trainable for p in (one, many))
  np.testing.assert_allclose(a[WEIGHT], b[WEIGHT], **tolerance["order"])


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path, train_flags, tolerance):
  """The model split over two hosts, joined by T5X's flags."""
  short = ("--gin.PROMPT_LENGTH=3", f"--gin.TRAIN_STEPS={STEP + 2}")
  assert run(train_flags(tmp_path / "one", *short)) == 0
  with socket.create_server(("", 0)) as server:
    port = server.getsockname()[1]
  flags = train_flags(
    tmp_path / "two",
    *short,
    "--gin_file=meshes/data_model.gin",
    "--gin.MODEL_PARALLEL=2",
    f"--coordinator_address=localhost:{port}",
    "--process_count=2",
    "--initialization_timeout=60",
  )
  compiler = "--xla_backend_optimization_level=0"
  processes = [
    subprocess.Popen(
      [
        *(sys.executable, "-m", "prompt_tuning.launch.train", *flags),
        f"--process_index={index}",
      ],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env=os.environ | {"XLA_FLAGS": compiler},
    )
    for index in (0, 1)
  ]
  ended = [process.communicate(timeout=240) for process in processes]
  assert [process.returncode for process in processes] == [0, 0], ended
  assert "prompt.npy" in ended[0][0]
  assert "exports" not in ended[1][0], "one process speaks for all"
  one, two = (
    bundle.read_latest(tmp_path / name / "bundles")[1].trainable[WEIGHT]
    for name in ("one", "two")
  )
  np.testing.assert_allclose(one, two, **tolerance["order"])


def test_a_prompt_can_start_from_another(
  finished, tmp_path, train_flags, tolerance
):
  (best,) = (finished / "best" / "run_1").iterdir()
  flags = train_flags(
    tmp_path / "next",
    f"--gin.PROMPT_FILE='{best}'",
    f"--gin.TRAIN_STEPS={STEP + 1}",
    "--gin.LEARNING_RATE=1e-8",
    prompt=("--gin_file=prompts/from_file.gin",),
  )
  assert run(flags) == 0
  first = bundle.read(best).trainable[WEIGHT]
  _, last = bundle.read_latest(tmp_path / "next" / "bundles")
  # One step of rate 1e-8, and the weight decay.
  np.testing.assert_allclose(
    last.trainable[WEIGHT], first * (1 - 1e-5), **tolerance["sum"]
  )


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      ["--gin.TRAIN_STEPS=30_000"],
      "it counts the 1,100,000 steps of the checkpoint. Set it to 1,100,000 "
      "plus the steps to train",
    ),
    (
      ["--gin_file=meshes/data.gin", "--gin.BATCH_SIZE=12"],
      "A batch of 12 rows (BATCH_SIZE 12 x 1 runs) cannot be split over 8",
    ),
    (
      [
        "--gin_file=meshes/data.gin",
        "--gin.BATCH_SIZE=8",
        "--gin.EVAL_BATCH_SIZE=6",
      ],
      "BATCH_SIZE 6 cannot be divided among 8 data-parallel devices",
    ),
    (
      # A task whose answers are free text; by default it is generated.
      [
        "--gin.data.custom_task.name='free_text'",
        "--gin.data.custom_task.label_words=()",
        "--gin.CLASS_LABELS=['yes']",
      ],
      "'free_text' has no label words to rank",
    ),
    (["--gin.SEEDS=(1, 2, 1)"], "Several runs are called seed1"),
    (
      ["--gin_file=meshes/data_model.gin", "--gin.MODEL_PARALLEL=8"],
      "The mesh cannot split these parameters evenly",
    ),
    (
      ["--gin_file=models/sizes/small.gin"],
      "The checkpoint has the shapes of: t5_1_1_tiny",
    ),
    (["--gin.MODEL_DIR='/dev/null/run'"], "MODEL_DIR cannot be written to"),
    (["--gin.CLASS_LABELS=['']"], "label"),
    (["--gin.BATCH_SIZE='4'"], "BATCH_SIZE is '4'; expected a whole number"),
    (["--gin.TRAIN_SPLIT='test'"], "has no split 'test'"),
    (["--gin.VOCABULARY_FILE='nowhere.model'"], "No vocabulary file nowhere"),
  ],
)
def test_bad_input_stops_before_the_first_step(
  changes, message, tmp_path, train_flags, capsys
):
  assert run(train_flags(tmp_path / "run", *changes)) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / "run" / "bundles").exists()


def test_a_prompt_of_another_width_is_refused(tmp_path, train_flags, capsys):
  np.save(tmp_path / "wide.npy", np.zeros((100, 8), np.float32))
  flags = train_flags(
    tmp_path / "run",
    f"--gin.PROMPT_FILE='{tmp_path}/wide.npy'",
    prompt=("--gin_file=prompts/from_file.gin",),
  )
  assert run(flags) == 2
  assert "trained for a model of another width" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (
      "BATCH_SIZE=0",
      "error: BATCH_SIZE is 0; expected a whole number, 1 or more.\n",
    ),
    ("TASK_FEATURE_LENGTHS=3", "error: TASK_FEATURE_LENGTHS is 3; expected a"),
  ],
)
def test_errors_say_nothing_of_gins_own_calls(
  change, message, tmp_path, train_flags, capsys
):
  flags = train_flags(tmp_path / "run", f"--gin.{change}", "--dry_run")
  assert main.main(["train", *flags]) == 2
  error = capsys.readouterr().err
  assert message in error
  assert "In call to" not in error


def test_dry_run_writes_nothing(tmp_path, train_flags, capsys):
  assert run(train_flags(tmp_path / "run", "--dry_run")) == 0
  assert "train.total_steps = %TRAIN_STEPS" in capsys.readouterr().out
  assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_demo_command_line_trains_without_tensorflow(
  tmp_path, tiny_checkpoint, vocabulary_file, monkeypatch
):
  """The original's sst2-demo.sh: other module, other gin paths, tiny model.

  The cold run imports TensorFlow to tokenise; the warm one must not.
  """
  files = tmp_path / "official" / "SST-2"
  files.mkdir(parents=True)
  for split in ("train", "dev"):
    rows = [f"it is {'good' if i % 2 else 'bad'} .\t{i % 2}" for i in range(8)]
    (files / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows]))
  tfds_data_dir, model_dir = tmp_path / "tfds", tmp_path / "run"
  source = str(tmp_path / "official")
  prepare = ["data", "prepare", "--source", source]
  assert main.main([*prepare, f"--tfds_data_dir={tfds_data_dir}"]) == 0
  demo = [
    "--gin_search_paths=/t5x,/flaxformer,/prompt_tuning",
    "--gin_file=models/t5_1_1_tiny_prompt.gin",
    "--gin_file=prompts/from_class_labels.gin",
    "--gin_file=runs/prompt_finetune.gin",
    "--gin.CLASS_LABELS=['positive', 'negative']",
    f"--gin.MODEL_DIR='{model_dir}'",
    "--gin.MIXTURE_OR_TASK_NAME='taskless_glue_sst2_v200_examples'",
    "--gin.MIXTURE_OR_TASK_MODULE='prompt_tuning.data.glue'",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 512, 'targets': 8}",
    f"--gin.INITIAL_CHECKPOINT_PATH='{tiny_checkpoint}'",
    f"--gin.TRAIN_STEPS={STEP + 1}",
    "--gin.USE_CACHED_TASKS=False",
    f"--tfds_data_dir={tfds_data_dir}",
    # Not in the original: one of the eight devices of these tests, and haste.
    "--gin_file=meshes/single.gin",
    "--gin.EVAL_STEPS=0",
    "--gin.EVALUATE_BY='rank'",
  ]
  monkeypatch.setenv("PROMPT_TUNING_VOCABULARY", vocabulary_file)
  monkeypatch.setenv("PROMPT_TUNING_CACHE_DIR", str(tmp_path / "tokens"))
  assert run(demo) == 0
  done = subprocess.run(
    [sys.executable, "-m", "prompt_tuning.launch.train", *demo],
    capture_output=True,
    text=True,
    env=os.environ | {"PYTHONPROFILEIMPORTTIME": "1"},
    cwd=tmp_path,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  imported = {
    line.rpartition("|")[2].strip() for line in done.stderr.split("\n")
  }
  assert "prompt_tuning.train.loop" in imported
  assert "tensorboardX" in imported
  unneeded = {"tensorflow", "seqio", "tensorflow_datasets"}
  # TensorBoard's writer is told that there is no torch, and does without.
  assert not {*unneeded, "torch.nn", "transformers"} & imported
  exported = model_dir / "exports" / "taskless_glue_sst2_v200_examples"
  assert f"{exported}/prompt.npy" in done.stdout
  assert np.load(exported / "prompt.npy").shape == (100, 4)
