"""Strict numerics for every test, and the one table of tolerances."""

import os
import pathlib

# Before jax starts: eight simulated devices for the sharding tests.
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compilation makes single examples slow; a failure must be the same everywhere.
hypothesis.settings.register_profile(
  "project", deadline=None, derandomize=True, max_examples=50
)
hypothesis.settings.load_profile("project")

SHARED = pathlib.Path(__file__).parent.parent.parent / "shared"

# Never loosened in the change that needs it.
TOLERANCES = {
  "parity": {"rtol": 1e-4, "atol": 1e-4},  # against torch, PEFT, T5X
  "oracle": {"rtol": 1e-5, "atol": 1e-5},  # against numpy in these tests
  "same": {"rtol": 1e-5, "atol": 1e-5},  # two ways to run the same program
}


@pytest.fixture(scope="session")
def tolerance():
  """The tolerance table."""
  return TOLERANCES


@pytest.fixture(scope="session")
def shared_data():
  """The folder of real data; skips, saying so, where it is absent."""
  path = SHARED / "data"
  if not path.is_dir():
    pytest.skip(f"real data not found: no folder {path}")
  return path
