"""A tiny random T5 in every format, and what each of them should read as."""

import pathlib
import types

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore as ts
from flax import serialization

from prompt_tuning.checkpoints import hf, restore, t5x_writer
from prompt_tuning.core import tree
from prompt_tuning.models.t5 import network
from prompt_tuning.models.t5.config import T5Config

# heads * head_dim != d_model, and no two sizes equal, so that a transposed or
# exchanged kernel has the wrong shape.
TINY = T5Config(
  vocab_size=24,
  emb_dim=8,
  num_heads=4,
  head_dim=3,
  mlp_dim=16,
  num_encoder_layers=2,
  num_decoder_layers=3,
  relpos_buckets=6,
)
STEP = 7
FORMATS = ("t5x", "t5x_inline", "orbax", "orbax_folders", "hf")


def random_params(config: T5Config = TINY, seed: int = 0):
  """Flat path -> float32 array."""
  rng = np.random.default_rng(seed)
  return {
    path: rng.standard_normal(struct.shape, np.float32)
    for path, struct in tree.flatten(network.abstract_params(config)).items()
  }


def write_orbax(
  folder, target, ocdbt=True, step=STEP, step_dtype=np.int32, **options
):
  """Save as T5X's `OrbaxCheckpointManagerInterface` does; returns the path."""
  handler = ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt, **options)
  manager = ocp.CheckpointManager(
    folder,
    options=ocp.CheckpointManagerOptions(step_prefix="checkpoint"),
    item_handlers={"state": handler},
  )
  param_states = tree.unflatten(
    {f"{path}/v": np.zeros((1,), np.float32) for path in tree.flatten(target)}
  )
  state = {"step": np.asarray(step, step_dtype), "param_states": param_states}
  saved = {"target": target, "state": state}
  args = ocp.args.Composite(state=ocp.args.PyTreeSave(saved))
  manager.save(step, args=args, force=True)
  manager.wait_until_finished()
  manager.close()
  return pathlib.Path(folder) / f"checkpoint_{step}"


def write_zarr(folder, name, array, **metadata):
  """Write one array as T5X's older versions did: its own zarr folder."""
  spec = {
    "driver": "zarr",
    "dtype": array.dtype.name,
    "kvstore": {"driver": "file", "path": str(folder / name)},
    "metadata": {
      "shape": list(array.shape),
      "compressor": {"id": "gzip", "level": 1},
      **metadata,
    },
  }
  ts.open(spec, create=True).result().write(array).result()


def write_msgpack(path, contents):
  """Write a tree with Flax, whose format it is."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(serialization.msgpack_serialize(contents))


def write(folder: pathlib.Path, kind: str, flat, config=TINY) -> pathlib.Path:
  """Write parameters in one of `FORMATS`; returns the checkpoint's path."""
  params = tree.unflatten(flat)
  path = folder / kind / f"checkpoint_{STEP}"
  if kind == "t5x":
    t5x_writer.write_t5x(path, restore.leaves_of(params), step=STEP)
  elif kind == "t5x_inline":
    state = {"step": np.asarray(STEP, np.int32), "param_states": {}}
    optimizer = {"target": params, "state": state}
    write_msgpack(path, {"version": 3, "optimizer": optimizer})
  elif kind == "hf":
    path = folder / "hf"
    hf.write_hf(path, restore.leaves_of(params), config)
  else:
    write_orbax(folder / kind, params, ocdbt=kind == "orbax")
  return path


def structs(config: T5Config = TINY, dtype=np.float32, sharding=None):
  """The restore target of a model."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, dtype, sharding=sharding),
    network.abstract_params(config),
  )


@pytest.fixture(scope="session")
def flat():
  """Flat path -> array of the tiny model."""
  return random_params()


@pytest.fixture(scope="session")
def checkpoints(flat, tmp_path_factory):
  """Format -> path of the tiny model; not to be changed by tests."""
  folder = tmp_path_factory.mktemp("checkpoints")
  return {kind: write(folder, kind, flat) for kind in FORMATS}


@pytest.fixture(params=FORMATS)
def checkpoint(request, checkpoints):
  """The path of the tiny model, in each format."""
  return checkpoints[request.param]


@pytest.fixture(scope="session")
def tools():
  """The functions above, for tests, which cannot import this file."""
  return types.SimpleNamespace(
    config=TINY,
    step=STEP,
    formats=FORMATS,
    random_params=random_params,
    structs=structs,
    write=write,
    write_msgpack=write_msgpack,
    write_orbax=write_orbax,
    write_zarr=write_zarr,
  )
