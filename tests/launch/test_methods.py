"""Every method the whole way by command, also one that the package has not.

It trains on two skills of the embedded model by its own recipe, is killed, goes
on, is evaluated on the test split, exported, and answers from its export. Then
all of them answer side by side.
"""

import importlib
import json
import pathlib
import re
import shutil
import sys

import numpy as np
import pytest

from prompt_tuning.checkpoints import backbone, bundle
from prompt_tuning.data import skills
from prompt_tuning.launch import main

TASKS = ("skill_first", "skill_last")
# A user's module, as the guide has it.
MODULE, DOCUMENT = "my_methods", pathlib.Path("docs", "methods.md")
OUTSIDE = "Loudness"
METHODS = {
  "prompt": ("prompts/from_sampled_vocab", "--gin.PROMPT_LENGTH=8"),
  "LoRA": ("methods/lora",),
  "(IA)3": ("methods/ia3",),
  "prefix": ("methods/prefix",),
  "prefix by MLP": (
    "methods/prefix_mlp",
    "--gin.PREFIX_HIDDEN=16",
    "--gin.PREFIX_DROPOUT=0.1",
  ),
  OUTSIDE: (
    None,
    f"--gin.METHOD_MODULE='{MODULE}'",
    f"--gin.TUNER=@tuners.{OUTSIDE}",
    "--gin.PARTITION_RULES=%partition.TUNER_ONLY",
  ),
}
STEPS, EXAMPLES = 4, 4
RESTORED = 9_000  # step of the embedded model


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
  """Puts a user's module on the path, for this file's tests."""
  folder = tmp_path_factory.mktemp("code")
  text = (pathlib.Path(__file__).parents[2] / DOCUMENT).read_text()
  (code,) = re.findall(rf"```python\n(# {MODULE}\.py\n.*?)```", text, re.S)
  (folder / f"{MODULE}.py").write_text(code)
  sys.path.insert(0, str(folder))
  yield str(folder)
  sys.path.remove(str(folder))
  sys.modules.pop(MODULE, None)


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
  """What all commands have in common: `flags(run file, settings, *more)`."""
  cache = tmp_path_factory.mktemp("tokens")

  def make(run, settings, *more):
    return [
      "--gin_file=models/embedded.gin",
      *more,
      f"--gin_file=runs/{run}.gin",
      "--gin_file=meshes/single.gin",
      f"--gin.TOKEN_CACHE_DIR='{cache}'",
      "--gin.MAX_DECODE_LENGTH=6",
      *(f"--gin.{name}={value!r}" for name, value in settings.items()),
    ]

  return make


@pytest.fixture(scope="module")
def train(flags):
  """Trains by command, in a folder; returns the status."""

  def run(folder, method, *last, **changes):
    file, *more = METHODS[method]
    settings = {
      "MODEL_DIR": str(folder),
      "MIXTURE_OR_TASK_NAME": TASKS,
      "TASK_FEATURE_LENGTHS": {"inputs": 16, "targets": 8},
      "TRAIN_STEPS": None,
      "TRAIN_STEPS_RELATIVE": STEPS,
      "CHECKPOINT_PERIOD": 2,
      "LOG_PERIOD": 2,
      "EVAL_PERIOD": STEPS,
      "EVAL_STEPS": 0,
      "EVALUATOR_NUM_EXAMPLES": EXAMPLES,
      "BATCH_SIZE": EXAMPLES,
      "BATCHING": "fixed",
      "train.progress_bar": False,
      "train.tensorboard": False,
    }
    files = [f"--gin_file={file}.gin"] if file else []
    argv = flags("finetune", settings | changes, *files)
    return main.main(["train", *argv, *more, *last])

  return run


@pytest.fixture(scope="module")
def use(flags):
  """Evaluates, answers or scores by command, into a folder."""

  def run(command, folder, prompts, rows=EXAMPLES, **more):
    output = "EVAL_OUTPUT_DIR" if command == "eval" else "INFER_OUTPUT_DIR"
    settings = {
      "CHECKPOINT_PATH": "embedded:ladder_1",
      "PROMPT_FILE": prompts,
      "BATCH_SIZE": rows,
      "RESTORE_DTYPE": "float32",
      "TASK_FEATURE_LENGTHS": {"inputs": 16, "targets": 8},
      output: str(folder),
    }
    if command == "eval":
      settings["EVALUATOR_NUM_EXAMPLES"] = EXAMPLES
    argv = flags(f"prompt_{command}", settings | more)
    return main.main([command, *argv])

  return run


@pytest.fixture(scope="module")
def trained(outside, train, tmp_path_factory):
  """Folders of finished runs, each made once."""
  folders = {}

  def make(method):
    if method not in folders:
      folder = tmp_path_factory.mktemp("runs") / "run"
      assert train(folder, method) == 0
      folders[method] = folder
    return folders[method]

  return make


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
  """Folders of what they learned, without the method."""
  folders = {}

  def make(method):
    if method not in folders:
      folder = tmp_path_factory.mktemp("exports")
      argv = ["export", str(trained(method)), str(folder)]
      assert main.main(argv) == 0
      folders[method] = folder
    return folders[method]

  return make


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def evaluated(folder):
  """Return task or name -> its predictions."""
  found = {}
  for path in sorted(folder.rglob("*.jsonl")):
    if "metrics" not in path.name:
      key = (path.parent.name, path.name.partition("-")[0])
      found[key] = [line["prediction"] for line in lines(path)]
  return found


def answers(folder, key):
  (path,) = [p for p in folder.iterdir() if p.name[-5:].isdigit()]
  return [line[key] for line in lines(path)]


def asked(tmp_path, names=(None,)):
  """Write questions of the test split, each for every name."""
  rows = list(skills.examples("first", "test"))[:EXAMPLES]
  path = tmp_path / "questions.jsonl"
  rows = [row | {"prompt": name} for name in names for row in rows]
  path.write_text("\n".join(map(json.dumps, rows)))
  return {"INPUT_FILE": str(path), "MIXTURE_OR_TASK_NAME": None}


@pytest.mark.parametrize("method", ["prompt", OUTSIDE])
def test_what_a_run_writes_down_runs_alone(method, trained, capsys):
  folder = trained(method)
  for name in ("config.gin", "operative_config.gin"):
    text = (folder / name).read_text()
    assert (f"METHOD_MODULE = '{MODULE}'\n" in text) == (method == OUTSIDE)
    assert main.main(["train", f"--gin_file={folder / name}", "--dry_run"]) == 0
    assert str(folder) in capsys.readouterr().out


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_goes_on_to_the_bit(method, trained, train, tmp_path):
  """What a kill after the bundle of step 2 leaves, finishes as the other."""
  whole, again = trained(method), tmp_path / "run"
  left = pathlib.Path("bundles", "step_00000002")
  shutil.copytree(whole / left, again / left)
  assert train(again, method) == 0
  for name in ("trainable.safetensors", "resume.safetensors"):
    path = pathlib.Path("bundles", "step_00000004", name)
    assert (again / path).read_bytes() == (whole / path).read_bytes()
  log = lines(again / "metrics.jsonl")
  assert {entry["step"] for entry in log} == {RESTORED + STEPS}


@pytest.mark.parametrize("method", METHODS)
def test_an_export_does_what_the_run_does(
  method, trained, exported, use, tmp_path, capsys
):
  """On the test split; both tasks in one batch, each with its own run."""
  task = {"MIXTURE_OR_TASK_NAME": TASKS, "EVAL_SPLIT": "test"}
  run, export = trained(method), exported(method)
  assert use("eval", tmp_path / "run", str(run), **task) == 0
  capsys.readouterr()
  named = {name: str(export / name) for name in TASKS}
  assert use("eval", tmp_path / "export", named, **task) == 0
  table = capsys.readouterr().out
  assert all(name in table for name in TASKS)
  found = evaluated(tmp_path / "run")
  assert found == evaluated(tmp_path / "export")
  assert set(found) == {(name, name) for name in TASKS}
  out, questions = tmp_path / "out", asked(tmp_path)
  assert use("infer", out, named["skill_first"], **questions) == 0
  first = found["skill_first", "skill_first"]
  assert answers(out, "prediction") == first


@pytest.fixture(scope="module")
def side_by_side(exported, tmp_path_factory):
  """Name -> what learned a skill, or a random prompt, or the model alone."""
  vectors = np.random.default_rng(0).normal(size=(20, 96)).astype(np.float32)
  path = tmp_path_factory.mktemp("random") / "prompt.npy"
  np.save(path, vectors)
  return {
    **{name: str(exported(name) / "skill_first") for name in METHODS},
    "long prompt": str(path),
    "plain": None,
  }


@pytest.mark.parametrize(
  ("command", "key"), [("infer", "prediction"), ("score", "score")]
)
def test_a_mixed_batch_answers_as_each_alone(
  command, key, side_by_side, use, tmp_path, tolerance
):
  names = list(side_by_side)
  (tmp_path / "mixed").mkdir()
  questions = asked(tmp_path / "mixed", names)
  rows, out = EXAMPLES * len(names), tmp_path / "mixed" / "out"
  assert use(command, out, side_by_side, rows, **questions) == 0
  mixed = answers(out, key)
  alone = {}
  for name, prompt in side_by_side.items():
    out = tmp_path / name / "out"
    assert use(command, out, prompt, **asked(tmp_path)) == 0
    alone[name] = answers(out, key)
  for number, name in enumerate(names):
    ours = mixed[number * EXAMPLES : (number + 1) * EXAMPLES]
    if command == "infer":
      assert ours == alone[name], name
    else:
      np.testing.assert_allclose(ours, alone[name], **tolerance["same"])


def test_a_mixed_evaluation_scores_as_each_alone(side_by_side, use, tmp_path):
  task = {"MIXTURE_OR_TASK_NAME": "skill_first", "EVAL_SPLIT": "test"}
  rows = EXAMPLES * len(side_by_side)
  assert use("eval", tmp_path / "mixed", side_by_side, rows, **task) == 0
  mixed = evaluated(tmp_path / "mixed")
  for name, prompt in side_by_side.items():
    assert use("eval", tmp_path / name, {name: prompt}, **task) == 0
    (alone,) = evaluated(tmp_path / name).items()
    assert (alone[0], mixed[alone[0]]) == alone
  assert len(mixed) == len(side_by_side)


def test_where_its_module_is_not_its_bundle_names_it_and_its_export_works(
  outside, trained, exported, use, tmp_path, monkeypatch, capsys
):
  run, export = trained(OUTSIDE), str(exported(OUTSIDE) / "skill_first")
  assert use("infer", tmp_path / "a", export, **asked(tmp_path)) == 0
  monkeypatch.setattr(sys, "path", [p for p in sys.path if p != outside])
  monkeypatch.delitem(sys.modules, MODULE)
  importlib.invalidate_caches()
  capsys.readouterr()
  assert use("infer", tmp_path / "b", str(run), **asked(tmp_path)) == 2
  message = capsys.readouterr().err
  assert f"tuned with {OUTSIDE} of {MODULE}" in message
  assert f"folder of {MODULE!r} on PYTHONPATH" in message
  assert use("infer", tmp_path / "c", export, **asked(tmp_path)) == 0
  ours, theirs = (answers(tmp_path / name, "prediction") for name in "ca")
  assert ours == theirs


# What cannot be done is one line, before anything large is read.

BAD = """
import flax.linen as nn
import jax.numpy as jnp
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.shape import ModelShape
from prompt_tuning.tuners.method import Method, Recipe

RATED = Recipe(learning_rate=0.1)


class Sized(Method):
  from_model = ("shape",)
  recipe = RATED
  shape: ModelShape = ModelShape()

  def factors(self, name="factors", features=None):
    size = (self.shape.num_encoder_layers, features or self.shape.emb_dim)
    return self.param(name, nn.initializers.ones, size)

  @nn.compact
  def __call__(self, inputs):
    return Delta(scale={"enc_self/out": self.factors()})


class WithoutParameters(Sized):
  def __call__(self, inputs):
    return Delta(scale={"enc_self/out": jnp.ones((2, 96))})


class Slashed(Sized):
  @nn.compact
  def __call__(self, inputs):
    return Delta(scale={"enc_self/out": self.factors("a/b")})


class TooWide(Sized):
  @nn.compact
  def __call__(self, inputs):
    return Delta(scale={"enc_self/out": self.factors(features=97)})


class Misplaced(Sized):
  @nn.compact
  def __call__(self, inputs):
    return Delta(scale={"enc_self/outt": self.factors()})


class WideWhileItTrains(Sized):
  @nn.compact
  def __call__(self, inputs):
    made = self.factors()
    wide = made[:, :1] if inputs.train else made
    return Delta(scale={"enc_self/out": wide})


class Idle(Sized):
  @nn.compact
  def __call__(self, inputs):
    self.factors()
    return Delta()


class Silent(Sized):
  @nn.compact
  def __call__(self, inputs):
    self.factors()


class Unrated(Sized):
  recipe = Recipe()


class Unheld(Sized):
  table: object = frozenset({1})


class Asking(Sized):
  from_model = ("shape", "emb_dims")


class Fieldless(Sized):
  from_model = ("emb_dim",)
"""
MODULES = {
  "bad_methods": BAD,
  "bad_syntax": "def f(:\n",
  "bad_import": "import no_such_package\n",
  "no_methods": "from prompt_tuning.tuners.lora import LoRA\n",
  "second_lora": (
    "from prompt_tuning.tuners import lora\n\n\nclass LoRA(lora.LoRA): pass\n"
  ),
}


@pytest.fixture(scope="module")
def bad_modules(tmp_path_factory):
  folder = tmp_path_factory.mktemp("bad")
  for name, text in MODULES.items():
    (folder / f"{name}.py").write_text(text)
  sys.path.insert(0, str(folder))
  yield
  sys.path.remove(str(folder))
  for name in MODULES:
    sys.modules.pop(name, None)


@pytest.fixture
def refused(bad_modules, train, tmp_path, monkeypatch, capsys):
  """Returns the one line that a training is refused with, in time."""

  def load(*_):
    pytest.fail("the model was read")

  monkeypatch.setattr(backbone, "load", load)

  def run(*last, **changes):
    assert train(tmp_path / "run", "LoRA", *last, **changes) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    (_, says) = message.split("error: ")
    return " ".join(says.split())

  return run


# Class of the module above -> what a training with it is refused with.
REFUSED = {
  "WithoutParameters": "WithoutParameters has no parameters; expected",
  "Slashed": "Slashed has parameters whose names hold '/': a/b. Paths use",
  "TooWide": (
    "TooWide cannot train this model; change TUNER, or its settings. .*"
    r"scale\[enc_self/out\]: expected \[runs, 2, 96\], got \[2, 2, 97\]"
  ),
  "Misplaced": (
    r"Misplaced cannot .*scale\['enc_self/outt'\]: no such site. Did you mean "
    "'enc_self/out'"
  ),
  "WideWhileItTrains": r"expected \[runs, 2, 96\], got \[2, 2, 1\]",
  "Idle": "change TUNER, or its settings. Its delta is empty",
  "Silent": "Silent returns None; expected a Delta",
  "Unrated": "The recipe of Unrated has no learning rate of its own: set LEARN",
  "Unheld": (
    r"Unheld.table is frozenset\(\{1\}\) \(frozenset\), which a bundle cannot "
    "hold. Settings of a method are numbers, text"
  ),
  "Asking": "from_model names 'emb_dims', but .*Did you mean 'emb_dim'",
  "Fieldless": "from_model names 'emb_dim', but the class has no such field",
}
# Setting -> the same.
MISNAMED = {
  "TUNER=@tuners.Lora": "nothing is called @tuners.Lora. Did you mean '.*LoRA'",
  "tuners.LoRA.rnak=3": "LoRA has no parameter rnak. Did you mean 'rank'",
  "tuners.IA4.rank=3": "nothing is called tuners.IA4. Did you mean '.*IA3'",
  "PARTITION_RULES=(('.*', 'freeze'),)": (
    "The rules freeze every parameter: .* Change `train.rules`"
  ),
  "METHOD_MODULE='bad_syntax'": (
    "METHOD_MODULE 'bad_syntax' cannot be imported: SyntaxError: .*line 1"
  ),
  "METHOD_MODULE='bad_import'": (
    "'bad_import' cannot be imported: ModuleNotFoundError: .*no_such_package"
  ),
  "METHOD_MODULE='nowhere'": "Is the folder of 'nowhere' on PYTHONPATH",
  "METHOD_MODULE='no_methods'": "'no_methods' defines no tuning method",
  "METHOD_MODULE='second_lora'": (
    "Two tuning methods are called LoRA: those of prompt_tuning.tuners.lora "
    "and second_lora. Rename one"
  ),
}


@pytest.mark.parametrize("method", REFUSED)
def test_methods_that_cannot_train(refused, method):
  module = "--gin.METHOD_MODULE='bad_methods'"
  tuner = f"--gin.TUNER=@tuners.{method}"
  message = refused(module, tuner, "--dry_run")
  assert re.search(REFUSED[method], message), message
  assert refused(module, tuner) == message


@pytest.mark.parametrize("setting", MISNAMED)
def test_settings_that_name_no_method(refused, setting):
  message = refused(f"--gin.{setting}", "--dry_run")
  assert re.search(MISNAMED[setting], message), message


@pytest.mark.parametrize(
  ("described", "width", "says"),
  [
    (
      "Promt",
      0,
      "was tuned with 'Promt', which is not a known method. Did you",
    ),
    ("bad_methods:Sized", 96, "the parameters of Sized; found"),
    ("bad_methods:Idle", 0, "a delta to write; found one that changes nothing"),
  ],
)
def test_bundles_of_which_there_is_no_export(
  described, width, says, bad_modules, tmp_path, capsys
):
  run = {
    "runs": [{"name": ""}],
    "tuners": [{"class": described}],
    "backbone": {"fingerprint": "abc"},
    "start_step": 0,
  }
  arrays = {"tuner/factors": np.ones((1, 0, width), np.float32)}
  saved = bundle.Bundle({"run": run, "step": 1}, arrays)
  bundle.write(tmp_path / "bundle", saved)
  argv = ["export", str(tmp_path / "bundle"), str(tmp_path / "out")]
  assert main.main(argv) == 2
  message = capsys.readouterr().err
  assert "Traceback" not in message
  assert says in message
  assert not (tmp_path / "out").exists()
