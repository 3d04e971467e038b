"""From the shell to a trained step: `prompt-tuning train`, cold and warm.

One step on RTE, 64 tokens, batch 8, of the model that the other sections use,
with its checkpoint, data and vocabulary read from disk and the bundle written.
What an earlier command may have left: compiled programs, tokenised examples.
"""

import os
import pathlib
import subprocess
import sys
import time
from typing import Any

from benchmarks.turns import spread

TASK = "taskless_super_glue_rte_v102"


def measure_commands(
  model: pathlib.Path,
  data_dir: str,
  vocabulary: str,
  scratch: pathlib.Path,
  rounds: int = 3,
) -> list[dict[str, Any]]:
  """Time whole commands.

  Args:
    model: checkpoint of a T5 1.1 small.
    data_dir: TFDS's.
    vocabulary: SentencePiece file.
    scratch: an empty folder.
    rounds: of each kind; the kinds take turns.

  Returns:
    One row per kind: what was there before, and the spread of seconds.
  """
  seconds: dict[str, list[float]] = {}
  for turn in range(rounds):
    kept = scratch / f"programs_{turn}", scratch / f"tokens_{turn}"
    other = scratch / f"more_tokens_{turn}"
    kinds = {
      "nothing": kept,
      "programs and tokens": kept,
      "programs": (kept[0], other),
    }
    for kind, (programs, tokens) in kinds.items():
      folder = scratch / f"run_{turn}_{kind.split()[-1]}"
      spent = _train(model, data_dir, vocabulary, folder, programs, tokens)
      seconds.setdefault(kind, []).append(spent)
  return [
    {"kept": kind, "seconds": spread(values)}
    for kind, values in seconds.items()
  ]


def _train(
  model: pathlib.Path,
  data_dir: str,
  vocabulary: str,
  folder: pathlib.Path,
  programs: pathlib.Path,
  tokens: pathlib.Path,
) -> float:
  """Run the command; returns its seconds."""
  settings = {
    "MODEL_DIR": repr(str(folder)),
    "INITIAL_CHECKPOINT_PATH": repr(str(model)),
    "RESTORED_STEP": "0",
    "MIXTURE_OR_TASK_NAME": repr(TASK),
    "TASK_FEATURE_LENGTHS": "{'inputs': 64, 'targets': 8}",
    "VOCABULARY_FILE": repr(vocabulary),
    "TOKEN_CACHE_DIR": repr(str(tokens)),
    "BATCH_SIZE": "8",
    "BATCHING": "'fixed'",
    "TRAIN_STEPS_RELATIVE": "1",
    "TRAIN_STEPS": "None",
    "EVAL_STEPS": "0",
    "train.evaluation": "None",
  }
  command = [
    *(sys.executable, "-m", "prompt_tuning.launch.main", "train"),
    "--gin_file=models/t5_1_1_small_prompt.gin",
    "--gin_file=runs/prompt_finetune.gin",
    *(f"--gin.{name}={value}" for name, value in settings.items()),
    f"--tfds_data_dir={data_dir}",
  ]
  environment = dict(
    os.environ,
    JAX_ENABLE_COMPILATION_CACHE="1",
    JAX_COMPILATION_CACHE_DIR=str(programs),
  )
  start = time.perf_counter()
  done = subprocess.run(
    command, env=environment, capture_output=True, text=True
  )
  if done.returncode:
    raise RuntimeError(done.stderr[-2000:])
  return time.perf_counter() - start
