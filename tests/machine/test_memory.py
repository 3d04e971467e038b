"""A process that keeps its memory, and those that are left alone."""

import os
import subprocess
import sys

import pytest

# Median page faults of calls that need a temporary of 64 MB each.
PROBE = """
import resource, statistics
from prompt_tuning.machine import memory
done = memory.keep()
import jax, jax.numpy as jnp
@jax.jit
def work(x):
  y = jax.lax.optimization_barrier(jnp.tile(x, (4000, 4000)))
  return jnp.sum(jnp.sin(y) @ y[:, :1])
def faults():
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  jax.block_until_ready(work(jnp.ones((1, 1))))
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
counts = [faults() for _ in range(25)]
# The heap may still grow by a block in one of the first calls.
print(done, int(statistics.median(counts)))
"""
KEEP = "from prompt_tuning.machine import memory; print(memory.keep())"
pytestmark = pytest.mark.skipif(
  sys.platform != "linux", reason="this is about glibc's malloc"
)


def _probe(program=PROBE, **environment):
  kept = {k: v for k, v in os.environ.items() if not k.startswith("XLA_")}
  kept.pop("JAX_NUM_CPU_DEVICES", None)
  done = subprocess.run(
    [sys.executable, "-c", program],
    env={**kept, "JAX_PLATFORMS": "cpu", **environment},
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.split()


def test_pages_are_not_taken_from_the_kernel_again():
  done, kept = _probe()
  left, fresh = _probe(PROMPT_TUNING_KEEP_MEMORY="0")
  assert (done, left) == ("True", "False")
  assert int(fresh) > 64_000_000 / 4096 / 2
  assert int(kept) < int(fresh) / 20


@pytest.mark.parametrize(
  "environment",
  [
    {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
    {"JAX_NUM_CPU_DEVICES": "2"},
    {"JAX_PLATFORMS": "tpu,cpu"},
  ],
)
def test_other_machines_are_left_alone(environment):
  assert _probe(KEEP, **environment) == ["False"]


def test_a_process_that_has_jax_is_left_alone():
  program = (
    "import jax; from prompt_tuning.machine import memory;print(memory.keep())"
  )
  assert _probe(program) == ["False"]


@pytest.mark.parametrize("plugin", ["libtpu", "jax_plugins"])
def test_where_an_accelerator_may_be_it_is_left_alone(plugin, tmp_path):
  (tmp_path / f"{plugin}.py").touch()
  path = os.pathsep.join([str(tmp_path), os.getcwd()])
  found = _probe(KEEP, PYTHONPATH=path, JAX_PLATFORMS="")
  assert found == ["False"]


def test_commands_come_to_it_before_jax():
  program = "import sys, prompt_tuning.launch.main; print('jax' in sys.modules)"
  assert _probe(program) == ["False"]
