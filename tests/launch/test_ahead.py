"""The step is compiled while weights are read, once."""

import types

import jax
import jax.numpy as jnp
import pytest

from prompt_tuning.launch import main, training
from prompt_tuning.launch.ahead import Compiling
from prompt_tuning.train.step import AbstractStep

FULLY_SHARDED = [
  "--gin_file=meshes/fully_sharded.gin",
  "--gin.MODEL_PARALLEL=2",
  "--gin.BATCH_SIZE=8",
]
COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compiled():
  """Names of functions, in the order in which XLA was given them."""
  names = []

  def listen(event, _, fun_name="", **__):
    if event == COMPILED:
      names.append(fun_name.removeprefix("jit(").removesuffix(")"))

  jax.monitoring.register_event_duration_secs_listener(listen)
  yield names
  jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize(
  "more",
  [
    [],
    ["--gin.SEEDS=(0, 1)"],
    ["--gin.RESTORE_DTYPE='int8'"],
    ["--gin_file=meshes/data.gin", "--gin.BATCH_SIZE=8"],
    FULLY_SHARDED,
  ],
  ids=["prompt", "bank", "int8", "data", "fully sharded"],
)
def test_training_compiles_its_step_once(train_flags, tmp_path, compiled, more):
  flags = train_flags(tmp_path, *more, "--gin.train.evaluation=None")
  assert main.main(["train", *flags]) == 0
  assert compiled.count("step") == 1


@pytest.mark.parametrize("more", [[], FULLY_SHARDED])
def test_so_does_model_tuning(train_flags, tmp_path, compiled, more):
  flags = train_flags(
    tmp_path,
    *more,
    "--gin.train.evaluation=None",
    run="model_tuning",
    prompt=(),
  )
  assert main.main(["train", *flags]) == 0
  assert compiled.count("step") == 1


def test_it_is_compiled_before_the_weights_are_there(
  train_flags, tmp_path, compiled, monkeypatch
):
  """Restoring waits for the compiler, which would never end otherwise."""
  made = []
  monkeypatch.setattr(
    training,
    "Compiling",
    lambda described: made.append(Compiling(described)) or made[0],
  )
  load = training.backbone.load

  def load_late(*args):
    made[0].step()
    assert compiled.count("step") == 1
    return load(*args)

  monkeypatch.setattr(training.backbone, "load", load_late)
  flags = train_flags(tmp_path, "--gin.train.evaluation=None")
  assert main.main(["train", *flags]) == 0
  assert len(made) == 1
  assert compiled.count("step") == 1


def _described(step):
  shape = jax.ShapeDtypeStruct((3,), jnp.float32)
  program = types.SimpleNamespace(step=step)
  return AbstractStep(program, shape, shape, shape)


def test_other_arguments_compile_another_program(compiled):
  def step(state, frozen, batch):
    return state + frozen * batch, batch

  ahead = Compiling(_described(step)).step()
  x = jnp.ones(4)
  for _ in range(2):
    ahead(jnp.zeros(4), x, x)
  assert compiled.count("step") == 2


def test_what_cannot_be_compiled_is_an_error_when_it_is_called():
  def step(state, frozen, batch):
    raise ValueError(f"{batch.shape}")

  ahead = Compiling(_described(step)).step()
  x = jnp.ones(3)
  with pytest.raises(ValueError, match="3,"):
    ahead(x, x, x)
