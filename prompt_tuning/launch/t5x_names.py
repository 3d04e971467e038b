"""Settings of T5X that have another name here.

Command lines of the public code keep their meaning. Macros and flags have T5X's
names. Settings that are named after T5X's classes are translated, with a
warning that gives the name here.
"""

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from prompt_tuning.launch.gin_statements import MACRO, Setting

logger = logging.getLogger(__name__)

_MODEL_PARALLEL = "MODEL_PARALLEL"
_MESH_FILE = "meshes/data_model.gin"


class _Today(NamedTuple):
  """The counterpart of a setting of T5X.

  Attributes:
    macros: of these the first that the configuration has.
    convert: the value of T5X's -> that of the macro.
  """

  macros: tuple[str, ...]
  convert: Callable[[Any], Any] = lambda value: value


def _product(value: Any) -> Any:
  """Count the devices of a submesh; other values are left for gin to refuse."""
  if isinstance(value, tuple | list) and all(type(n) is int for n in value):
    return math.prod(value)
  return value


_ANY_SPLIT = ("INFER_SPLIT", "EVAL_SPLIT", "TRAIN_SPLIT")
# T5X's class and parameter, with its scope if that matters.
_TODAY: Mapping[str, _Today] = {
  "partitioning.PjitPartitioner.num_partitions": _Today((_MODEL_PARALLEL,)),
  "partitioning.PjitPartitioner.model_parallel_submesh": _Today(
    (_MODEL_PARALLEL,), _product
  ),
  "trainer.Trainer.num_microbatches": _Today(("NUM_MICROBATCHES",)),
  "train/utils.DatasetConfig.batch_size": _Today(("BATCH_SIZE",)),
  "train_eval/utils.DatasetConfig.batch_size": _Today(("EVAL_BATCH_SIZE",)),
  "infer_eval/utils.DatasetConfig.batch_size": _Today(("EVAL_BATCH_SIZE",)),
  "utils.DatasetConfig.batch_size": _Today(("BATCH_SIZE",)),
  "train/utils.DatasetConfig.split": _Today(("TRAIN_SPLIT",)),
  "train_eval/utils.DatasetConfig.split": _Today(("EVAL_SPLIT",)),
  "infer_eval/utils.DatasetConfig.split": _Today(("EVAL_SPLIT",)),
  "utils.DatasetConfig.split": _Today(_ANY_SPLIT),
  "utils.DatasetConfig.seed": _Today(("RANDOM_SEED",)),
  "utils.DatasetConfig.mixture_or_task_name": _Today(("MIXTURE_OR_TASK_NAME",)),
  "utils.DatasetConfig.task_feature_lengths": _Today(("TASK_FEATURE_LENGTHS",)),
  "utils.DatasetConfig.use_cached": _Today(("USE_CACHED_TASKS",)),
  # Rows that are not packed go into buckets, unless BATCHING says otherwise.
  "utils.DatasetConfig.pack": _Today(
    ("BATCHING",), lambda pack: "packed" if pack else "buckets"
  ),
  "utils.RestoreCheckpointConfig.path": _Today(
    ("INITIAL_CHECKPOINT_PATH", "CHECKPOINT_PATH")
  ),
  "utils.RestoreCheckpointConfig.dtype": _Today(("RESTORE_DTYPE",)),
  "utils.SaveCheckpointConfig.period": _Today(("CHECKPOINT_PERIOD",)),
  "utils.SaveCheckpointConfig.keep": _Today(("KEEP_CHECKPOINTS",)),
  "utils.create_learning_rate_scheduler.base_learning_rate": _Today(
    ("LEARNING_RATE",)
  ),
  "seqio.SentencePieceVocabulary.sentencepiece_model_file": _Today(
    ("VOCABULARY_FILE",)
  ),
  "prompts.Prompt.length": _Today(("PROMPT_LENGTH",)),
  "prompts.np_load.path": _Today(("PROMPT_FILE",)),
}
# Macros without a counterpart -> why none is needed.
_NEEDLESS: Mapping[str, str] = {
  "EMBEDDING_FILE": "the embedding table is that of the model in memory",
  "EVALUATOR_USE_MEMORY_CACHE": "tokenised examples are in TOKEN_CACHE_DIR",
  "NUM_TASKS": "the mixture says how many tasks there are",
  "USE_HARDWARE_RNG": "random numbers are the same on every machine",
}


def files_for(settings: Sequence[Setting]) -> tuple[str, ...]:
  """Name the gin files that T5X's settings need and nobody gave.

  Args:
    settings: those that were read.

  Returns:
    The file of a mesh of two axes, if settings give a number of devices that
    share the model.
  """
  names = {setting.macro for setting in settings}
  for setting in settings:
    _, today = _find(setting)
    if today and today.macros == (_MODEL_PARALLEL,):
      return () if _MODEL_PARALLEL in names else (_MESH_FILE,)
  return ()


def translate(settings: Sequence[Setting]) -> Iterator[Setting]:
  """Replace T5X's names by the names here, and warn.

  Args:
    settings: those that were read.

  Yields:
    Settings. A setting that needs no counterpart is left out. One whose macro
    none of the packaged files declares stays as it is, for gin to refuse.
  """
  declared = {s.macro for s in settings if s.macro and s.is_packaged}
  for setting in settings:
    if setting.is_packaged or setting.macro in declared:
      yield setting
      continue
    why = _NEEDLESS.get(setting.macro or "")
    if why:
      logger.warning(
        "%s: %s has no effect: %s.", setting.origin, setting.macro, why
      )
      continue
    old, today = _find(setting)
    macro = next((m for m in today.macros if m in declared), None)
    if macro is None:
      yield setting
      continue
    value = today.convert(setting.value)
    logger.warning(
      "%s: %s is T5X's name; here it is %s = %r.",
      *(setting.origin, old, macro, value),
    )
    yield dataclasses.replace(
      setting, scope=macro, selector=MACRO, parameter="value", value=value
    )


def hint(setting: Setting) -> str:
  """Say what to use here for one of T5X's settings.

  Args:
    setting: a setting that does not exist here.

  Returns:
    A sentence, or the empty string if it is none of them.
  """
  old, today = _find(setting)
  if not today.macros:
    return ""
  return f"T5X's {old} is the macro {' or '.join(today.macros)} here."


def old_names() -> dict[str, tuple[str, ...]]:
  """List T5X's classes and parameters by the macro for each of them here."""
  names: dict[str, list[str]] = {}
  for old, today in _TODAY.items():
    for macro in today.macros:
      names.setdefault(macro, []).append(old)
  return {macro: tuple(olds) for macro, olds in names.items()}


def needless() -> Mapping[str, str]:
  """List T5X's macros that need no counterpart here, each with the reason."""
  return dict(_NEEDLESS)


def _find(setting: Setting) -> tuple[str, _Today]:
  """Find a setting, first with its scope, then without."""
  name = f"{setting.selector}.{setting.parameter}"
  for old, today in _TODAY.items():
    plain = old.rpartition("/")[2]
    if plain != name and not plain.endswith(f".{name}"):
      continue
    if old in (plain, f"{setting.scope}/{plain}"):
      return plain, today
  return name, _Today(())
