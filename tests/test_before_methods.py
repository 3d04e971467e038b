"""Runs from before methods were classes of their own still do the same.

What lies in `golden/before_methods`, and how it was made: its README.md. Only
commands, and the notebook's functions, are called: names inside may change.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import gin
import numpy as np
import pytest
import safetensors.numpy

from prompt_tuning import api
from prompt_tuning.launch import main

OLD = pathlib.Path(__file__).parent / "golden" / "before_methods"
RUNS = ("before_text", "around_text")
# Every form in which a prompt was written -> whose answers it gives.
PROMPTS = {
  "before_text/best/run_0/step_00000010": "seed0",
  "before_text/exports/seed0/prompt.npy": "seed0",
  "before_text/exports/seed0/peft": "seed0",
  "before_text/best/run_1/step_00000020": "seed1",
  "before_text/exports/seed1/prompt.npy": "seed1",
  "before_text/exports/seed1/peft": "seed1",
  "around_text": "around",
  "around_text/bundles/step_00000020": "around",
}
TEXTS = (
  "horse red seven",
  "old young happy sad",
  "bread hand table river church",
  "three nine one",
  "doctor yellow mother coat",
  "hot loud old",
  "lion tiger apple chair moon",
  "two silver sister",
)
ENCODER = "tuner/encoder/prompt/prompt/prompt"
DECODER = "tuner/decoder/prompt/prompt/prompt"


@pytest.fixture(autouse=True)
def clean_gin():
  """Configurations are global to a process: none may leak."""
  yield
  gin.clear_config()


@pytest.fixture(scope="module")
def token_cache(tmp_path_factory):
  return tmp_path_factory.mktemp("tokens")


@pytest.fixture(scope="module")
def recorded():
  return json.loads((OLD / "answers.json").read_text())


def ask(folder, paths):
  """Let prompts answer all texts, in one batch.

  Args:
    folder: that the paths are in.
    paths: of prompts.

  Returns:
    Per path one row per text: what is predicted, the log-likelihood of the last
    word, those of the first three as candidates, and the best one's number.
  """
  model = api.load_model("embedded:ladder_1", batch_size=len(paths) * 8)
  model = model.with_prompts({path: folder / path for path in paths})
  texts = TEXTS * len(paths)
  prompts = [path for path in paths for _ in TEXTS]
  predicted = model.predict(texts, prompts)
  scores = model.score(texts, [text.split()[-1] for text in texts], prompts)
  ranked = model.rank(texts, [text.split()[:3] for text in texts], prompts)
  rows = [
    {
      "text": text,
      "predicted": said,
      "last": last,
      "first": list(found.scores),
      "best": found.best,
    }
    for text, said, last, found in zip(
      texts, predicted, scores, ranked, strict=True
    )
  ]
  size = len(TEXTS)
  return {
    path: rows[number * size : (number + 1) * size]
    for number, path in enumerate(paths)
  }


def test_every_form_of_a_prompt_answers_as_before(recorded, tolerance):
  answered = ask(OLD, tuple(PROMPTS))
  for path, name in PROMPTS.items():
    for ours, theirs in zip(
      answered[path], recorded["answers"][name], strict=True
    ):
      for key in ("text", "predicted", "best"):
        assert ours[key] == theirs[key], (path, key)
      for key in ("last", "first"):
        np.testing.assert_allclose(ours[key], theirs[key], **tolerance["same"])


@pytest.mark.parametrize(
  ("path", "names"),
  [
    ("before_text/bundles/step_00000020", ("seed0", "seed1")),
    ("before_text/best/run_0/step_00000010", ("seed0",)),
    ("before_text/best/run_1/step_00000020", ("seed1",)),
    ("around_text/bundles/step_00000020", ("",)),
    ("around_text/best/run_0/step_00000020", ("",)),
  ],
)
def test_bundles_load_to_the_bit(path, names, tmp_path):
  assert main.main(["export", str(OLD / path), str(tmp_path)]) == 0
  stored = safetensors.numpy.load_file(OLD / path / "trainable.safetensors")
  files = {"prompt.npy": ENCODER, "prompt_decoder.npy": DECODER}
  found = {
    name: {
      files[file.name]: np.load(file)
      for file in (tmp_path / name).glob("*.npy")
    }
    for name in names
  }
  for run, name in enumerate(names):
    assert found[name].keys() == stored.keys()
    for parameter, values in found[name].items():
      np.testing.assert_array_equal(values, stored[parameter][run])


@pytest.mark.parametrize("run", RUNS)
def test_a_run_is_exported_as_before(run, tmp_path):
  """The same vectors; PEFT's adapter says more, where the model is known."""
  assert main.main(["export", str(OLD / run), str(tmp_path)]) == 0
  old = sorted((OLD / run / "exports").rglob("*.npy"))
  new = [tmp_path / path.relative_to(OLD / run / "exports") for path in old]
  assert old
  for ours, theirs in zip(new, old, strict=True):
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("seed", ["seed0", "seed1"])
def test_adapters_load_to_the_bit(seed, tmp_path):
  folder = OLD / "before_text" / "exports" / seed
  copy = tmp_path / "prompt.npy"
  argv = ["convert", str(folder / "peft"), str(copy), "--to", "npy"]
  assert main.main(argv) == 0
  np.testing.assert_array_equal(np.load(copy), np.load(folder / "prompt.npy"))


@pytest.mark.parametrize("run", RUNS)
def test_configurations_mean_the_same(run, capsys):
  assert main.main(["train", *flags(run), "--dry_run"]) == 0
  now = settings(capsys.readouterr().out)
  before = settings((OLD / run / "operative_config.gin").read_text())
  # What is new since then has a default, which is no part of what was meant.
  assert before.items() <= now.items(), {
    name: (value, now.get(name))
    for name, value in before.items()
    if now.get(name) != value
  }


@pytest.mark.parametrize("run", RUNS)
def test_a_run_goes_on_as_before(
  run, recorded, tolerance, token_cache, tmp_path, monkeypatch
):
  monkeypatch.setenv("PROMPT_TUNING_CACHE_DIR", str(token_cache))
  folder = tmp_path / run
  shutil.copytree(OLD / run, folder)
  argv = [
    *flags(run),
    f"--gin.MODEL_DIR='{folder}'",
    "--gin.TRAIN_STEPS_RELATIVE=24",
    "--gin.LOG_PERIOD=1",
    "--gin.train.evaluation=None",
  ]
  # Through the compiler that users have: four steps multiply what they round,
  # and unoptimised code rounds more, on some processors by more than `same`.
  subprocess.run(
    [sys.executable, "-m", "prompt_tuning.launch.main", "train", *argv],
    env=os.environ | {"XLA_FLAGS": ""},
    check=True,
  )
  last = folder / "bundles" / "step_00000024" / "trainable.safetensors"
  ours = safetensors.numpy.load_file(last)
  theirs = safetensors.numpy.load_file(
    OLD / run / "continued" / "trainable.safetensors"
  )
  assert ours.keys() == theirs.keys()
  for path in theirs:
    np.testing.assert_allclose(ours[path], theirs[path], **tolerance["same"])
  # It went on, rather than from the start: the old log is still there.
  before = (OLD / run / "metrics.jsonl").read_text()
  log = (folder / "metrics.jsonl").read_text()
  assert log.startswith(before)
  new = map(json.loads, log.removeprefix(before).splitlines())
  losses = [entry["train/loss"] for entry in new]
  np.testing.assert_allclose(
    losses, recorded["losses"][run], **tolerance["same"]
  )


def flags(run):
  """Return the flags that read a run's configuration.

  SEEDS = (0, 1) makes nothing of RANDOM_SEED, which stands in `config.gin` all
  the same, and only a file that declares it makes that known.
  """
  return [
    "--gin_file=runs/prompt_finetune.gin",
    f"--gin_file={OLD / run / 'config.gin'}",
  ]


def settings(text):
  """Read `name = value` of gin, whose values may take several lines.

  A macro stands for its value: a setting may have got one since.
  """
  statements = re.split(r"\n(?=\S)", text)
  pairs = [s.split(" = ", 1) for s in statements if not s.startswith("#")]
  found = {name: " ".join(value.split()) for name, value in pairs}
  return {
    name: found.get(value.removeprefix("%"), value)
    for name, value in found.items()
  }
