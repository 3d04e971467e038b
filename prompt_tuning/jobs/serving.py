"""Export prediction as a program that runs with only jax (StableHLO).

A folder:

  predict.stablehlo  greedy decoding, by `jax.export`
  model.npz          the frozen model's arrays, an argument
  bank.npz           what was learned by any number of runs, an argument
  signature.json     shapes, names of the runs, versions
  README.md          how to call it
"""

import io
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from prompt_tuning.checkpoints import backbone, restore, sizes
from prompt_tuning.core import algebra, axes, bounds, files, tree
from prompt_tuning.core.types import PAD_ID, Array
from prompt_tuning.infer import programs
from prompt_tuning.infer.runs import Runs
from prompt_tuning.jobs import load
from prompt_tuning.jobs.load import Tuned
from prompt_tuning.models.t5 import site_shapes
from prompt_tuning.models.t5.config import T5Config
from prompt_tuning.models.t5.decoding import Greedy

PREFIX = "prefix_tokens"  # of the bank: [K, P] ids in front of a text
PROGRAM, MODEL, BANK = "predict.stablehlo", "model.npz", "bank.npz"
SIGNATURE, CARD = "signature.json", "README.md"
_PLATFORMS = ("cpu", "cuda", "tpu")
# Arrays of a delta that scoring or a mixture of runs uses, after the model.
_BEYOND_IDS = ("head_rows", "word_weights", "log_weight")


def export(
  src: str,
  dst: str,
  model: str,
  rows: int = 8,
  inputs: int = 64,
  length: int = 8,
) -> list[str]:
  """Write a program that predicts with tuned runs.

  Args:
    src: path of the runs, see `load.load`; several runs become one bank.
    dst: the folder to make.
    model: checkpoint of their backbone.
    rows: B, rows of a batch.
    inputs: T, most tokens of a text, EOS included.
    length: S, tokens of an answer.

  Returns:
    Lines that say what was written.

  Raises:
    CheckpointError: a path holds nothing tuned, or no model.
    ValueError: runs belong to another model, have virtual tokens that are not
      in front of the text, or a size is below 1.
  """
  for name, value in {"rows": rows, "inputs": inputs, "length": length}.items():
    bounds.insist_whole(f"--{name}", value, 1)
  folder = files.path(dst)
  if folder.exists():
    raise ValueError(f"{dst} exists already; choose another folder.")
  checkpoint = restore.open_checkpoint(model, whole=False)
  config = sizes.infer_config(checkpoint)
  frozen = backbone.load(
    checkpoint, config, None, axes.STANDARD_RULES, "float32"
  )
  tuned = load.insist(load.load(src, config.shape), frozen, src, None)
  if tuned.weights:
    raise ValueError(f"{src} holds a tuned model: there is no bank to export.")
  weights = {k: np.asarray(v) for k, v in tree.flatten(frozen.params).items()}
  _insist_on_place(tuned, src)
  bank = bank_of(tuned.runs, config)
  exported = program(config, weights, bank, rows, inputs, length)
  described = {
    "runs": [name or "run" for name in tuned.names],
    "rows": rows,
    "inputs": inputs,
    "length": length,
    "platforms": list(_PLATFORMS),
    "jax": jax.__version__,
    "backbone": frozen.fingerprint,
  }
  with files.replacing(folder) as temporary:
    made = pathlib.Path(temporary)
    made.mkdir()
    (made / PROGRAM).write_bytes(bytes(exported.serialize()))
    (made / MODEL).write_bytes(_npz(weights))
    (made / BANK).write_bytes(_npz(bank))
    text = json.dumps(described, indent=2) + "\n"
    (made / SIGNATURE).write_text(text, encoding="utf-8")
    (made / CARD).write_text(_card(described), encoding="utf-8")
  count = len(tuned.names)
  return [f"{folder}: written, with {count} run{'s' * (count > 1)}"]


def _insist_on_place(tuned: Tuned, src: str) -> None:
  """Insist that no task's template says where virtual tokens stand."""
  for run, name in enumerate(tuned.tasks):
    if tuned.runs.is_in_template(run):
      raise ValueError(
        f"{src}: the template of {name} puts virtual tokens into the text, but "
        "an exported program puts them before it. Use eval or infer instead."
      )


def bank_of(runs: Runs, config: T5Config) -> dict[str, np.ndarray]:
  """Return the arrays of a bank by name, and the ids of its virtual tokens.

  Args:
    runs: K of them.
    config: of the model.

  Returns:
    Name -> array with a leading axis of K.

  Raises:
    ValueError: virtual tokens are not in front of the text, or the delta has
      arrays for which the program has no place, see `_BEYOND_IDS`.
  """
  site_shapes.check(runs.delta, config)
  for name in _BEYOND_IDS:
    if getattr(runs.delta, name) is not None:
      raise ValueError(
        f"The runs have {name}, and an exported program has no place for "
        "them. Use eval or infer instead."
      )
  prefixes = []
  for placement in runs.placements:
    prefixes.append(placement.encoder_prefix)
    if placement.encoder_rows != prefixes[-1] or placement.decoder_prefix:
      raise ValueError(
        "The virtual tokens do not stand before the text, where an exported "
        "program puts them (as prompts/prompt.gin does). Use eval or infer "
        "instead."
      )
  longest = max(map(len, prefixes))
  tokens = np.full((len(prefixes), longest), PAD_ID, np.int32)
  for row, prefix in enumerate(prefixes):
    if prefix:  # padding in front keeps prompt and text next to each other
      tokens[row, longest - len(prefix) :] = prefix
      tokens[row, longest - len(prefix) :] += config.vocab_size
  leaves = algebra.named_leaves(runs.delta)
  return {PREFIX: tokens, **{n: np.asarray(a) for n, a in leaves.items()}}


def program(
  config: T5Config,
  weights: Mapping[str, np.ndarray],
  bank: Mapping[str, np.ndarray],
  rows: int,
  inputs: int,
  length: int,
) -> jax.export.Exported:
  """Lower prediction for every platform.

  Args:
    config: of the model.
    weights: path -> array.
    bank: see `bank_of`; its number of runs is part of the program.
    rows: B.
    inputs: T.
    length: S.

  Returns:
    A program of (weights, bank, [B, T] int32 ids, [B] int32 numbers of runs),
    which gives [B, S] int32 ids, 0 behind the end.
  """
  decode = programs.decoder(config, Greedy(), length, None)

  def predict(
    weights: Mapping[str, Array],
    bank: Mapping[str, Array],
    texts: Array,
    runs: Array,
  ) -> Array:
    named = {name: array for name, array in bank.items() if name != PREFIX}
    tokens = jnp.concatenate([bank[PREFIX][runs], texts], axis=1)
    batch = {
      "encoder_input_tokens": tokens,
      "run_ids": runs,
      "seed": jnp.zeros((), jnp.int32),
      "numbers": jnp.arange(rows, dtype=jnp.int32),
    }
    delta = algebra.from_named_leaves(named)
    decoded = decode(tree.unflatten(dict(weights)), delta, batch)
    best: Array = decoded.tokens[:, 0]
    return best

  def shape(array: np.ndarray) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)

  return jax.export.export(jax.jit(predict), platforms=_PLATFORMS)(
    {name: shape(array) for name, array in weights.items()},
    {name: shape(array) for name, array in bank.items()},
    jax.ShapeDtypeStruct((rows, inputs), jnp.int32),
    jax.ShapeDtypeStruct((rows,), jnp.int32),
  )


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
  out = io.BytesIO()
  np.savez(out, allow_pickle=False, **dict(arrays))
  return out.getvalue()


def _card(described: Mapping[str, Any]) -> str:
  runs = "\n".join(f"- {k}: {name}" for k, name in enumerate(described["runs"]))
  rows, inputs = described["rows"], described["inputs"]
  return f"""# A frozen T5 and what was trained for it, as a StableHLO program

The program needs jax {described["jax"]} or later, and NumPy:

```python
import jax.export
import numpy as np

with open("{PROGRAM}", "rb") as file:
  predict = jax.export.deserialize(bytearray(file.read()))
model, bank = dict(np.load("{MODEL}")), dict(np.load("{BANK}"))
texts = np.zeros(({rows}, {inputs}), np.int32)  # ids, EOS (1), then 0
runs = np.zeros({rows}, np.int32)  # which run answers each row
answers = predict.call(model, bank, texts, runs)  # ids, 0 after the end
```

The ids are those of the model's SentencePiece file. You can pass another bank
with as many runs and arrays of the same shapes. The runs of this one:

{runs}
"""
