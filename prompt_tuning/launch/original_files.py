"""Gin files of google-research/prompt-tuning, and their counterparts here."""

import logging
import pathlib
import posixpath
from collections.abc import Mapping

logger = logging.getLogger(__name__)

# Files of the public code that have another name here. Some of them are read
# only by its tests.
_PREFIXES = (
  "prompt_tuning/configs/",
  "prompt_tuning/extended/perceptron/configs/",
)
_FLAXFORMER = "_t5_1_1_flaxformer.gin"
_FILES: Mapping[str, str] = {
  "architectures/t5_1_1_flaxformer.gin": "models/t5_1_1.gin",
  f"architectures/prompt_encoder{_FLAXFORMER}": "models/t5_1_1_prompt.gin",
  f"architectures/ia3{_FLAXFORMER}": "models/ia3_t5_1_1.gin",
  f"architectures/multi_task_prompt_encoder{_FLAXFORMER}": (
    "models/multi_task_t5_1_1_prompt.gin"
  ),
  f"architectures/multi_task_factorized_prompt_encoder{_FLAXFORMER}": (
    "models/multi_factorized_task_mt5_base_prompt.gin"
  ),
  f"architectures/per_layer_prompt_encoder{_FLAXFORMER}": (
    "models/t5_1_1_per_layer_prompt.gin"
  ),
  "runs/multitask_prompt_finetune.gin": "runs/prompt_finetune.gin",
  "runs/multitask_factorized_prompt_finetune.gin": "runs/prompt_finetune.gin",
  "test/t5_1_1_tiny.gin": "models/t5_1_1_tiny.gin",
  "test/t5_1_1_tiny_prompt.gin": "models/t5_1_1_tiny_prompt.gin",
  "test/train_t5_1_1_tiny.gin": "runs/tiny_model_tuning.gin",
  "test/multi_task_t5_1_1_tiny_prompt.gin": (
    "models/multi_task_t5_1_1_tiny_prompt.gin"
  ),
  **{
    f"test/{does}_t5_1_1_tiny_prompt.gin": "runs/tiny_prompt_finetune.gin"
    for does in ("load", "train")
  },
  **{
    f"test/{does}_multi_task_t5_1_1_tiny_prompt.gin": (
      "runs/tiny_multi_task_prompt_finetune.gin"
    )
    for does in ("load", "train")
  },
}


def file_of(name: str, root: pathlib.Path) -> pathlib.Path | None:
  """Find this project's file for one of the public code's files.

  The public code's own file would not work: it names classes that do not exist
  here.

  Args:
    name: such as `prompt_tuning/configs/models/t5_1_1_base_prompt.gin`.
    root: of the package's files.

  Returns:
    The file; None if the public code has no file of that name.
  """
  for prefix in _PREFIXES:
    if not name.startswith(prefix):
      continue
    short = name.removeprefix(prefix).removeprefix("extended/")
    today = _FILES.get(short, short)
    path = root / today
    if not path.is_file() or posixpath.normpath(today) != today:
      return None
    if today != short:
      logger.warning("%s is %s here.", name, today)
    return path
  return None
