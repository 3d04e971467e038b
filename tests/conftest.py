"""Strict numerics for every test, and the one table of tolerances."""

# ruff: noqa: E402 - flags have to be set before jax is imported.

import atexit
import ctypes
import fcntl
import gc
import os
import pathlib
import resource
import shutil
import signal
import tempfile

from tests import quick_compiler

# A shell lets what it starts in the background ignore Ctrl-C, and `nohup` a
# closed terminal; tests of signals and the commands that they start do not.
for _number, _handler in (
  (signal.SIGINT, signal.default_int_handler),
  (signal.SIGHUP, signal.SIG_DFL),
):
  if signal.getsignal(_number) == signal.SIG_IGN:
    signal.signal(_number, _handler)

# Before jax starts: eight simulated devices for the sharding tests, and the
# quick compiler. Parity runs a second time through the compiler that users have
# (`make check`).
_FLAGS = ["--xla_force_host_platform_device_count=8"]
if "TEST_WITH_FULL_COMPILER" not in os.environ:
  _FLAGS += quick_compiler.FLAGS
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_FLAGS])
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Before google.auth is imported, which else asks whether this is Google's
# machine: tests ask nobody elsewhere.
os.environ.setdefault("NO_GCE_CHECK", "true")
# All processes of one test run share what they compile: pytest's workers get
# the folder from the first process, commands get it from either. Nothing is
# left for the next test run, or for a user's commands.
if "PYTEST_XDIST_WORKER" not in os.environ:
  _PROGRAMS = tempfile.mkdtemp(prefix="compiled-for-tests-")
  atexit.register(shutil.rmtree, _PROGRAMS, ignore_errors=True)
  os.environ |= {
    "JAX_ENABLE_COMPILATION_CACHE": "1",
    "JAX_COMPILATION_CACHE_DIR": _PROGRAMS,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
  }

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compilation makes single examples slow; a failure must be the same everywhere.
hypothesis.settings.register_profile(
  "project", deadline=None, derandomize=True, max_examples=50
)
hypothesis.settings.load_profile("project")

# One random model in torch and in our tree, for the parity tests; a language to
# pre-train on; short trainings by command; a user's seqio module.
pytest_plugins = [
  "tests.bucket_servers",
  "tests.hugging_face_twins",
  "tests.invented_corpus",
  "tests.small_trainings",
  "tests.own_seqio_tasks",
]

SHARED = pathlib.Path(__file__).parent.parent.parent / "shared"

# Never loosened in the change that needs it.
TOLERANCES = {
  "parity": {"rtol": 1e-4, "atol": 1e-4},  # against torch, PEFT, T5X
  "oracle": {"rtol": 1e-5, "atol": 1e-5},  # against numpy in these tests
  "same": {"rtol": 1e-5, "atol": 1e-5},  # two ways to run the same program
  "order": {"rtol": 1e-4, "atol": 1e-4},  # the same steps, sums in other orders
  "layout": {"rtol": 2e-5, "atol": 1e-6},  # the same model, otherwise laid out
  "sum": {"rtol": 1e-5, "atol": 0},  # a loss, score or norm over many terms
  "arithmetic": {"rtol": 1e-6, "atol": 0},  # a few roundings of float32
  "formula": {"rtol": 2e-6, "atol": 1e-7},  # float32 against float64
  "mean": {"rtol": 0, "atol": 1e-6},  # of a few rows
  "beam": {"rtol": 1e-4, "atol": 1e-5},  # scores of sequences, step by step
  "trajectory": {"rtol": 1e-3, "atol": 0},  # many steps against torch
  "steps": {"rtol": 1e-3, "atol": 1e-3},  # the same, of arrays up to 1
  "alone": {"rtol": 0, "atol": 1e-6},  # a run in a bank, of arrays up to 1
  "still": {"rtol": 1e-4, "atol": 0},  # what hardly moves
  "metric": {"rtol": 0, "atol": 1e-6},  # against scipy and scikit-learn
  "bfloat16": {"rtol": 0.05, "atol": 0},  # against float32
  "float16": {"rtol": 5e-3, "atol": 0},  # against float32
  "int8": {"rtol": 0.1, "atol": 0},  # scores, against float32
  "grain": {"rtol": 2.1e-3, "atol": 0},  # half a step of float32, of 1 - 1.5e-5
  "double": {"rtol": 0, "atol": 1e-9},  # float64
  "draws": {"rtol": 0, "atol": 0.05},  # a share of hundreds of draws
  "spread": {"rtol": 0.01, "atol": 0},  # of many draws
  "epochs": {"rtol": 0.03, "atol": 0},  # a mean over hundreds of rows
  "size": {"rtol": 0.02, "atol": 0},  # bytes, next to which few are not counted
}


# Bytes of a test process, above which it forgets compiled programs.
_MUCH_MEMORY = 4 << 30


@pytest.fixture(scope="module", autouse=True)
def bounded_memory():
  """Do not let compiled programs of past modules fill the memory.

  Each takes 2 to 4 MB, and JAX keeps thousands, those of single operations too.
  All are on the disk.
  """
  yield
  pages = pathlib.Path("/proc/self/statm")  # Linux's
  if not pages.exists():
    return
  used = int(pages.read_text(encoding="utf-8").split()[1])
  if used * resource.getpagesize() > _MUCH_MEMORY:
    jax.clear_caches()
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc: give free memory back
      libc.malloc_trim(0)


@pytest.fixture(scope="module")
def own_tasks():
  """Tasks that a module's tests declare are gone behind them."""
  from prompt_tuning.data import spec

  before = dict(spec._specs)
  yield
  spec._specs.clear()
  spec._specs.update(before)


@pytest.fixture(scope="session")
def tolerance():
  """The tolerance table."""
  return TOLERANCES


def _random_params(config, seed=0):
  from prompt_tuning.core import tree
  from prompt_tuning.models.t5 import network

  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    noise = rng.normal(size=leaf.shape)
    if path.endswith("scale"):
      noise = 1 + 0.2 * noise
    elif path.endswith("kernel"):
      noise = noise / np.sqrt(leaf.shape[-2])
    return jnp.asarray(noise, leaf.dtype)

  flat = tree.flatten(network.abstract_params(config))
  return tree.unflatten({path: draw(path, leaf) for path, leaf in flat.items()})


@pytest.fixture(scope="session")
def random_params():
  """Draw a model with numpy, `(config, seed=0) -> params`; compiles nothing."""
  return _random_params


@pytest.fixture(scope="session")
def shared_data():
  """The folder of real data; skips, saying so, where it is absent."""
  path = SHARED / "data"
  if not path.is_dir():
    pytest.skip(f"real data not found: no folder {path}")
  return path


@pytest.fixture(scope="session")
def prepared_superglue(shared_data, tmp_path_factory):
  """TFDS's folder of official SuperGLUE, prepared once for all workers."""
  from prompt_tuning.launch import main

  root = tmp_path_factory.getbasetemp()
  if "PYTEST_XDIST_WORKER" in os.environ:
    root = root.parent  # what the workers of one run have in common
  folder, done = root / "superglue", root / "superglue.done"
  with open(root / "superglue.lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not done.exists():
      source = str(shared_data / "superglue")
      arguments = ["--source", source, "--tfds_data_dir", str(folder)]
      assert main.main(["data", "prepare", *arguments]) == 0
      done.touch()
  return folder


@pytest.fixture
def compiled():
  """Names of functions, in the order in which XLA was given them."""
  names = []

  def listen(event, _, fun_name="", **__):
    if event == "/jax/core/compile/backend_compile_duration":
      names.append(fun_name.removeprefix("jit(").removesuffix(")"))

  jax.monitoring.register_event_duration_secs_listener(listen)
  yield names
  jax.monitoring.unregister_event_duration_listener(listen)
