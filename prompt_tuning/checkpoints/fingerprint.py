"""Tell one backbone from another without reading all of it."""

import hashlib
from collections.abc import Mapping

import jax
import ml_dtypes
import numpy as np

from prompt_tuning.checkpoints.source import Leaf
from prompt_tuning.core import tree
from prompt_tuning.core.types import Array, Params

# Number of values of an array that are hashed; a fine-tuned copy differs in
# nearly all of them.
_SAMPLES = 256


def fingerprint(params: Params) -> str:
  """Identify a backbone by shapes and a sample of its values.

  Values are compared in bfloat16, so that a checkpoint restored in float32 and
  in bfloat16 has one fingerprint; layers may be stacked or not.

  Args:
    params: the model's parameters, sharded or not.

  Returns:
    16 hexadecimal digits.
  """
  samples_by_path: dict[str, bytes] = {}
  for path, leaf in tree.flatten(params).items():
    samples_by_path |= samples(path, leaf)
  return of_samples(samples_by_path)


def of_leaves(leaves: Mapping[str, Leaf]) -> str:
  """Identify the model of a checkpoint, reading one array at a time.

  Args:
    leaves: of the checkpoint, by path.

  Returns:
    The `fingerprint` of the model with these leaves.
  """
  samples_by_path: dict[str, bytes] = {}
  for path, leaf in leaves.items():
    samples_by_path |= samples(path, leaf.read(np.dtype(np.float32)))
  return of_samples(samples_by_path)


def samples(path: str, leaf: Array | np.ndarray) -> dict[str, bytes]:
  """Take a fingerprint's samples of one array, which may change afterwards.

  Args:
    path: of the array.
    leaf: the array; layers may be stacked.

  Returns:
    Path, unstacked -> shape and a sample of its values.
  """
  return {
    name: str(list(part.shape)).encode() + _sample(part).tobytes()
    for name, part in _unstacked(path, leaf).items()
  }


def of_samples(samples_by_path: Mapping[str, bytes]) -> str:
  """Identify a backbone by the samples of all its arrays, see `samples`."""
  digest = hashlib.sha256()
  for path, part in sorted(samples_by_path.items()):
    digest.update(path.encode() + part)
  return digest.hexdigest()[:16]


def checksum(params: Params) -> str:
  """Hash every byte of every array.

  Args:
    params: the model's parameters; all of them pass through host memory.

  Returns:
    64 hexadecimal digits of sha256 over paths, dtypes, shapes and bytes.
  """
  digest = hashlib.sha256()
  for path, leaf in tree.flatten(params).items():
    digest.update(f"{path} {leaf.dtype}{list(leaf.shape)}".encode())
    digest.update(np.ascontiguousarray(_whole(leaf)).tobytes())
  return digest.hexdigest()


def _whole(leaf: Array) -> Array | np.ndarray:
  """Bring an array to this host, even if several hosts hold it."""
  if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
    return leaf
  from jax.experimental import multihost_utils

  return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))


def _unstacked(
  path: str, leaf: Array | np.ndarray
) -> dict[str, Array | np.ndarray]:
  stack, _, rest = path.partition("/layers/")
  if not rest:
    return {path: leaf}
  count = leaf.shape[0]
  return {f"{stack}/layers_{i}/{rest}": leaf[i] for i in range(count)}


def _sample(leaf: Array | np.ndarray) -> np.ndarray:
  """Take evenly spread values of an array of any size, [<= 256] float32."""
  index = np.linspace(0, leaf.size - 1, min(leaf.size, _SAMPLES)).astype(int)
  indices = np.unravel_index(index, leaf.shape)
  if isinstance(leaf, jax.Array) and not _on_this_cpu(leaf):
    picked = np.asarray(_pick(leaf, indices))
  else:
    # A view copies nothing, and compiles nothing for every shape.
    picked = np.asarray(leaf)[indices]
  return picked.astype(ml_dtypes.bfloat16).astype(np.float32)


@jax.jit
def _pick(leaf: Array, indices: tuple[np.ndarray, ...]) -> Array:
  return leaf[indices]


def _on_this_cpu(leaf: jax.Array) -> bool:
  kinds = [device.platform for device in leaf.devices()]
  return kinds == ["cpu"]
