"""The step is compiled while weights are read, once."""

import functools
import types

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from prompt_tuning.jobs import train, train_job
from prompt_tuning.launch import main
from prompt_tuning.machine import kernels
from prompt_tuning.train.compiled_step import Compiling, Jitted
from prompt_tuning.train.step import AbstractStep
from prompt_tuning.tuners.prompt import Prompt

STEP = 1_100_000
NAME = "encoder_input_tokens"
ONE_BY_ONE = {"xla_disable_hlo_passes": "tree_reduction_rewriter"}
FULLY_SHARDED = [
  "--gin_file=meshes/fully_sharded.gin",
  "--gin.MODEL_PARALLEL=2",
  "--gin.BATCH_SIZE=8",
]


@pytest.fixture
def compiled_first(compiled, monkeypatch):
  """Weights are read after the step is compiled, and only then."""
  made = []

  class Waiting(Compiling):
    def __init__(self, described):
      super().__init__(described)
      made.append(self)

  load = train.backbone.load

  def load_late(*args):
    for one in made:
      one._thread.join()
    assert compiled.count("step") == len(made)
    return load(*args)

  monkeypatch.setattr(train, "Compiling", Waiting)
  monkeypatch.setattr(train.backbone, "load", load_late)
  return made


@pytest.mark.parametrize(
  "more",
  [
    [],
    ["--gin.SEEDS=(0, 1)"],
    ["--gin.BATCHING='buckets'", "--gin.train/Dataset.max_shapes=1"],
    ["--gin.RESTORE_DTYPE='int8'"],
    ["--gin_file=meshes/data.gin", "--gin.BATCH_SIZE=8"],
    FULLY_SHARDED,
  ],
  ids=["prompt", "bank", "buckets", "int8", "data", "fully sharded"],
)
def test_the_step_is_compiled_once_and_ahead(
  train_flags, tmp_path, compiled, compiled_first, more
):
  flags = train_flags(tmp_path, *more, "--gin.train.evaluation=None")
  assert main.main(["train", *flags]) == 0
  assert len(compiled_first) == 1
  assert compiled.count("step") == 1


@pytest.mark.parametrize("more", [[], FULLY_SHARDED])
def test_so_is_that_of_model_tuning(
  train_flags, tmp_path, compiled, compiled_first, more
):
  flags = train_flags(
    tmp_path,
    *more,
    "--gin.train.evaluation=None",
    run="model_tuning",
    prompt=(),
  )
  assert main.main(["train", *flags]) == 0
  assert len(compiled_first) == 1
  assert compiled.count("step") == 1


def test_a_run_that_goes_on_compiles_for_its_next_batch(
  train_flags, tmp_path, compiled, compiled_first
):
  """And one that has ended, or is another's, compiles nothing."""
  more = ["--gin.BATCHING='longest'", "--gin.train.evaluation=None"]
  flags = train_flags(tmp_path, *more, "--gin.BATCH_SIZE=1")
  steps = flags.index(f"--gin.TRAIN_STEPS={STEP + 4}")
  flags[steps] = f"--gin.TRAIN_STEPS={STEP + 1}"
  assert main.main(["train", *flags]) == 0
  compiled.clear()
  compiled_first.clear()
  flags[steps] = f"--gin.TRAIN_STEPS={STEP + 2}"
  assert main.main(["train", *flags]) == 0
  assert len(compiled_first) == 1
  assert compiled.count("step") == 1
  compiled.clear()
  compiled_first.clear()
  assert main.main(["train", *flags]) == 0
  assert main.main(["train", *flags, "--gin.BATCH_SIZE=2"]) == 2
  assert not compiled_first
  assert "step" not in compiled


def test_a_checkpoint_of_another_size_is_refused_before(
  train_flags, tmp_path, compiled_first, capsys
):
  flags = train_flags(tmp_path, "--gin_file=models/ladder_1.gin")
  assert main.main(["train", *flags]) == 2
  assert "52 mismatches" in capsys.readouterr().err
  assert not compiled_first


class Reader(Prompt):
  """A tuning method that looks at words when it is initialised."""

  @nn.compact
  def __call__(self, inputs):
    if self.is_initializing() and not inputs.context.tokenize("cat"):
      raise ValueError("No words.")
    return super().__call__(inputs)


def test_a_method_that_looks_at_words_is_compiled_when_it_runs(
  monkeypatch, train_flags, tmp_path, compiled, compiled_first
):
  build = train_job.build_tuner
  reader = functools.partial(Reader, encoder_length=4)
  monkeypatch.setattr(
    train_job, "build_tuner", lambda _, model, task: build(reader, model, task)
  )
  flags = train_flags(tmp_path, "--gin.train.evaluation=None")
  assert main.main(["train", *flags]) == 0
  assert not compiled_first
  assert compiled.count("step") == 1


def _described(step):
  shape = jax.ShapeDtypeStruct((3,), jnp.float32)
  nothing = types.SimpleNamespace(leaves=())
  program = types.SimpleNamespace(
    step=step, partition=nothing, num_microbatches=1
  )
  return AbstractStep(program, shape, shape, {NAME: shape})


def test_other_arguments_compile_another_program(compiled):
  def step(state, frozen, batch):
    return state + frozen * batch[NAME], batch

  ahead = Compiling(_described(step))
  x = jnp.ones(4)
  for _ in range(2):
    ahead(jnp.zeros(4), x, {NAME: x})
  assert compiled.count("step") == 2


def test_what_cannot_be_compiled_is_an_error_when_it_is_called():
  def step(state, frozen, batch):
    raise ValueError(f"{batch[NAME].shape}")

  ahead = Compiling(_described(step))
  x = jnp.ones(3)
  with pytest.raises(ValueError, match="3,"):
    ahead(x, x, {NAME: x})


def test_large_batches_are_compiled_in_another_way(monkeypatch):
  asked = []

  def options(positions, largest):
    asked.append((positions, largest))
    return ONE_BY_ONE if positions > 3 else {}

  monkeypatch.setattr(kernels, "step_options", options)
  leaves = (
    types.SimpleNamespace(size=7, mode="train"),
    types.SimpleNamespace(size=9, mode="freeze"),
  )
  program = types.SimpleNamespace(
    step=lambda state, frozen, batch: state + batch[NAME],
    partition=types.SimpleNamespace(leaves=leaves),
    num_microbatches=2,
  )
  step = Jitted(program)
  small, large = {NAME: jnp.ones(6)}, {NAME: jnp.ones((2, 4))}
  ways = [step.suited(batch) for batch in (small, large, small, large)]
  assert ways[0] is ways[2] is not ways[1] is ways[3]
  assert asked[:2] == [(3, 7), (4, 7)]
  assert step(jnp.ones((2, 4)), None, large).sum() == 16


def test_a_step_without_memory_is_no_traceback_ahead(caplog):
  def step(state, frozen, batch):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: too large")

  ahead = Compiling(_described(step))
  x = jnp.ones(3)
  with pytest.raises(jax.errors.JaxRuntimeError, match="too large"):
    ahead(x, x, {NAME: x})
  assert not caplog.records
