"""Open and restore checkpoints of every format, strictly.

checkpoint = restore.open_checkpoint(path)      # names and shapes, no arrays
config = sizes.infer_config(checkpoint)
params = restore.restore(path, abstract_params(config))
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prompt_tuning.checkpoints import (
  foreign,
  hf,
  hf_config,
  orbax,
  peft,
  prompts,
  sizes,
  strict,
  t5x,
)
from prompt_tuning.checkpoints.errors import (
  CheckpointError,
  parsing,
  unreadable,
)
from prompt_tuning.checkpoints.source import ArrayLeaf, Checkpoint, Leaf
from prompt_tuning.core import embedded, files, tree
from prompt_tuning.core.types import Params

if TYPE_CHECKING:
  from prompt_tuning.checkpoints import loading

_PROMPT = "a prompt: a NumPy file, a PEFT adapter, a checkpoint that has one"
_EXPECTED = (
  "a checkpoint: T5X's folder `checkpoint_<step>` (native or Orbax), or a "
  "folder with model.safetensors and config.json"
)


def open_checkpoint(
  path: str | os.PathLike[str], *, whole: bool = True
) -> Checkpoint:
  """Open a checkpoint of any known format, without reading arrays.

  Args:
    path: T5X's `checkpoint_<step>` folder, its msgpack file, a Hugging Face
      folder or a safetensors file, or `embedded:` and the name of a model that
      ships with the package.
    whole: whether leaves that cannot be opened are an error here. `restore`
      and `strict.match` take them as `Checkpoint.broken`, to list them with
      everything else that is wrong.

  Returns:
    Names, shapes, dtypes, step, and leaves that can read themselves.

  Raises:
    CheckpointError: it is not a checkpoint, or a damaged one.
  """
  checkpoint = _open(path)
  if whole and checkpoint.broken:
    raise CheckpointError(checkpoint.path, checkpoint.broken)
  return checkpoint


def _open(path: str | os.PathLike[str]) -> Checkpoint:
  """Find the reader of a path and let it open what it can."""
  name = _local(path)
  if not files.exists(name):
    raise unreadable(name, _EXPECTED, "nothing")
  with parsing(name, _EXPECTED):
    if files.is_file(name):
      return _open_file(name)
    return _open_folder(name)


def _local(path: str | os.PathLike[str]) -> str:
  """Write a path as TensorStore accepts it, without `./`, `..` and last `/`."""
  name = embedded.checkpoint(path)
  if "://" in name and not files.is_url(name):
    expected = "a path on this machine, or gs:// or s3://"
    raise unreadable(name, expected, "a URL", "Copy the folder here first.")
  return files.absolute(name)


def _open_file(path: str) -> Checkpoint:
  is_hf = files.is_file(os.path.join(os.path.dirname(path), hf_config.FILE))
  if path.endswith(".safetensors") and is_hf:
    return hf.open_hf(path)
  _refuse_foreign(path, _EXPECTED)
  return t5x.open_t5x(path)


def _refuse_foreign(path: str, expected: str) -> None:
  """Say what a file is if its format is known but not supported."""
  kind = foreign.of_file(path)
  if kind is not None:
    raise unreadable(path, expected, kind.name, kind.advice)


def _open_folder(path: str) -> Checkpoint:
  names = files.names(path)
  folder = orbax.find(path)
  if folder is not None:
    return orbax.open_orbax(path, folder)
  if t5x.FILE in names:
    return t5x.open_t5x(path)
  if hf.INDEX in names or hf.WEIGHTS in names:
    return hf.open_hf(path)
  raise _no_checkpoint(path, names)


def _no_checkpoint(path: str, names: Sequence[str]) -> CheckpointError:
  """Say what a folder holds instead of a checkpoint."""
  pickles = sorted(n for n in names if n.endswith(foreign.PICKLES))
  if peft.CONFIG in names:
    kind = "a PEFT adapter, not a model"
    return unreadable(path, _EXPECTED, kind, "Name the model it belongs to.")
  if hf.PICKLES[1] in names:
    hint = (
      "They are pickles, which we never open. Convert them where transformers "
      "is installed: T5ForConditionalGeneration.from_pretrained(FOLDER)"
      ".save_pretrained(ANOTHER_FOLDER)."
    )
    return unreadable(path, _EXPECTED, "a model in several .bin files", hint)
  if pickles:
    hint = foreign.pickle_advice(os.path.join(path, pickles[0]))
    found = f"{', '.join(pickles[:8])}: pickles, which are never opened"
    return unreadable(path, _EXPECTED, found, hint)
  inside = foreign.contents(path)
  if inside:
    hint = f"Name one of these: {foreign.spelled(inside)}."
    return unreadable(path, _EXPECTED, "a folder of others", hint)
  return unreadable(path, _EXPECTED, f"{sorted(names)[:8] or 'nothing in it'}")


def restore(
  path: str | os.PathLike[str] | Checkpoint,
  target: Params,
  *,
  ignore: Sequence[str] = (),
  convert: "loading.Convert | None" = None,
) -> Params:
  """Restore a model's parameters.

  Args:
    path: a checkpoint, or one that is already open.
    target: nested mappings of `jax.ShapeDtypeStruct`, such as
      `models.t5.network.abstract_params` gives. Arrays come back in its dtypes
      (any floating one for any other) and its `sharding`s (default: the first
      device); each host reads what its devices need. Stacked layers
      (`encoder/layers/...`, leading L) are put together from single ones.
    ignore: patterns (whole paths) of leaves that the checkpoint may have and
      the target does not have, such as `encoder/prompt/.*`.
    convert: function to apply to each array as soon as it is read, see
      `loading.load`.

  Returns:
    The target's tree, with `jax.Array`s or the results of `convert`.

  Raises:
    CheckpointError: a leaf is missing, surplus, misnamed, misshapen or damaged;
      one error lists all. No leaf is ever filled in.
  """
  from prompt_tuning.checkpoints import loading  # imports JAX

  checkpoint = path if isinstance(path, Checkpoint) else _open(path)
  leaves = check(checkpoint, target, ignore)
  arrays = loading.load(checkpoint.path, leaves, tree.flatten(target), convert)
  return tree.unflatten(arrays)


def check(
  checkpoint: Checkpoint, target: Params, ignore: Sequence[str] = ()
) -> dict[str, Leaf]:
  """Check that a checkpoint fits a target, without reading arrays.

  Args:
    checkpoint: an open checkpoint.
    target: see `restore`.
    ignore: see `restore`.

  Returns:
    The target's flat paths -> leaves to read.

  Raises:
    CheckpointError: see `restore`, except for arrays that are damaged.
  """
  flat = tree.flatten(target)
  return strict.match(
    checkpoint.path,
    checkpoint.params,
    flat,
    ignore,
    sizes.hint(checkpoint, flat),
    checkpoint.broken,
  )


def leaves_of(params: Params) -> dict[str, Leaf]:
  """Present parameters in memory as a checkpoint's leaves.

  Args:
    params: nested mappings of arrays; layers may be stacked.

  Returns:
    T5X's path -> leaf, unstacked; for `t5x_writer.write_t5x` and
    `hf.write_hf`.
  """
  leaves: dict[str, Leaf] = {}
  for path, array in tree.flatten(params).items():
    shape, dtype = tuple(array.shape), array.dtype
    layer_names = strict.layer_paths(path, shape)
    for layer, name in enumerate(layer_names or ()):
      leaves[name] = ArrayLeaf(name, shape[1:], dtype, array, layer)
    if layer_names is None:
      leaves[path] = ArrayLeaf(path, shape, dtype, array)
  return dict(sorted(leaves.items()))


def open_prompt(path: str | os.PathLike[str]) -> prompts.Prompt:
  """Read a prompt from a file or a folder of any known format.

  Args:
    path: a NumPy file, a folder that has one (`numpy_checkpoints/
      checkpoint_<step>`), a PEFT adapter, or a T5X checkpoint of a
      prompt-tuned model.

  Returns:
    The prompt.

  Raises:
    CheckpointError: there is none, more than one, or a damaged one.
  """
  name = _local(path)
  with parsing(name, _PROMPT):
    if files.is_file(os.path.join(name, peft.CONFIG)):
      return peft.read_vectors(name)
    if prompts.is_npy(name):
      return prompts.read_npy(name)
    if files.is_file(name):
      _refuse_foreign(name, _PROMPT)
    if name.endswith(".npy"):
      return prompts.read_npy(name)
    arrays = npy_files(name)
    if len(arrays) == 1:
      return prompts.read_npy(arrays[0])
    if arrays:
      content = f"{len(arrays)}: {[os.path.basename(a) for a in arrays[:12]]}"
      raise unreadable(name, "one prompt", content, "Name one of the files.")
    return prompts.from_checkpoint(open_checkpoint(name))


def npy_files(path: str) -> list[str]:
  """List the NumPy files of a folder, with any names."""
  if not files.is_dir(path):
    return []
  paths = (os.path.join(path, name) for name in sorted(files.names(path)))
  return [file for file in paths if prompts.is_npy(file)]


def holds_prompt(path: str | os.PathLike[str]) -> bool:
  """Say whether a path is a prompt file or adapter, rather than a model."""
  name = files.absolute(path)
  if files.is_dir(name):
    adapter = files.is_file(os.path.join(name, peft.CONFIG))
    return adapter or _only_arrays(name)
  return prompts.is_npy(name) or name.endswith(".npy")


def _only_arrays(folder: str) -> bool:
  """Say whether a folder has NumPy files, and nothing else."""
  arrays = npy_files(folder)
  return bool(arrays) and len(arrays) == len(files.names(folder))


def is_ours(path: str | os.PathLike[str]) -> bool:
  """Say whether a reader here takes a path for a model or a prompt.

  Args:
    path: a file or a folder.

  Returns:
    Whether a writer may replace it. Arrays may be damaged. A folder of prompts
    has only NumPy files.
  """
  name = files.absolute(path)
  kinds = (prompts.is_npy, peft.is_peft, hf.is_hf, t5x.is_t5x)
  if any(is_one(name) for is_one in kinds) or _only_arrays(name):
    return True
  try:
    _open(name)
  except CheckpointError:
    return False
  return True
