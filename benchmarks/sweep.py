"""A sweep of 24 cells beside 24 `train` commands, and killed five times.

  nice python -m benchmarks.sweep --out runs/sweep_benchmark

Three lengths, two initialisers, four seeds on the embedded model. Both sides
find what a first command has compiled and tokenised. Prints JSON: seconds,
their ratio, whether the killed sweep ended with the bytes of the undisturbed
one, and the largest difference of a cell's parameters from those of its own
command.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np

from prompt_tuning.checkpoints import bundle

LENGTHS, SEEDS = (1, 8, 20), (0, 1, 2, 3)
INITS = ("from_sampled_vocab", "uniform_paper")
# Bundles of the bank, and cells that are done, at which it is killed.
KILLS = ((1, 0), (2, 0), (2, 1), (2, 9), (2, 20))
SETTINGS = """
include "models/embedded_prompt.gin"
include "prompts/from_sampled_vocab.gin"
include "runs/prompt_finetune.gin"
include "meshes/single.gin"
MIXTURE_OR_TASK_NAME = "skill_first"
TASK_FEATURE_LENGTHS = {"inputs": 32, "targets": 16}
BATCH_SIZE = 8
DROPOUT_RATE = 0.0
TRAIN_STEPS = None
TRAIN_STEPS_RELATIVE = %d
EVAL_PERIOD = 50
EVAL_STEPS = 0
EVALUATOR_NUM_EXAMPLES = 64
CHECKPOINT_PERIOD = 25
LOG_PERIOD = 25
train.progress_bar = False
train.tensorboard = False
"""


def words(command: str, folder: pathlib.Path, gin: pathlib.Path) -> list[str]:
  """Begin a command line of this project."""
  return [
    *(sys.executable, "-m", "prompt_tuning.launch.main", command),
    *(f"--gin_file={gin}", f"--gin.MODEL_DIR={str(folder)!r}"),
  ]


def sweep(folder: pathlib.Path, gin: pathlib.Path) -> list[str]:
  """Return the command line of the sweep."""
  files = ",".join(f"prompts/{name}.gin" for name in INITS)
  axes = {
    "PROMPT_LENGTH": ",".join(map(str, LENGTHS)),
    "@init": files,
    "SEEDS": ",".join(map(str, SEEDS)),
  }
  flags = [f"--axis={axis}={values}" for axis, values in axes.items()]
  return [*words("sweep", folder, gin), *flags]


def cells() -> dict[str, list[str]]:
  """Return every cell's name, and its flags for `train`."""
  return {
    f"PROMPT_LENGTH={length},init={init},SEEDS={seed}": [
      f"--gin_file=prompts/{init}.gin",
      f"--gin.PROMPT_LENGTH={length}",
      f"--gin.SEEDS={seed}",
    ]
    for length in LENGTHS
    for init in INITS
    for seed in SEEDS
  }


def run(command: list[str]) -> float:
  """Run a command; returns its seconds."""
  started = time.perf_counter()
  subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
  return time.perf_counter() - started


def killed(command: list[str], folder: pathlib.Path) -> list[int]:
  """Kill a command in training and between cells, then let it end.

  Args:
    command: the words.
    folder: that it writes to.

  Returns:
    How many cells were done at every kill.
  """
  done = []
  for bundles, cells_done in KILLS:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
      of_cells = len(list(folder.glob("cells/*/cell.json")))
      of_bank = len(list(folder.glob("banks/*/bundles/step_*")))
      if of_bank >= bundles and of_cells >= cells_done:
        process.send_signal(signal.SIGKILL)
        break
      time.sleep(0.02)
    if process.wait() != -signal.SIGKILL:
      raise RuntimeError(f"It ended with {process.returncode}, not by a kill.")
    done.append(len(list(folder.glob("cells/*/cell.json"))))
  run(command)
  return done


def content(folder: pathlib.Path) -> dict[str, Any]:
  """Read all files of a sweep; of logs what does not depend on the clock."""
  found: dict[str, Any] = {}
  for path in sorted(folder.rglob("*")):
    name = str(path.relative_to(folder))
    if path.name == "metrics.jsonl":
      lines = map(json.loads, path.read_text().splitlines())
      found[name] = [
        {tag: v for tag, v in line.items() if "/timing/" not in tag}
        for line in lines
      ]
    elif path.is_file() and not path.name.startswith("writer"):
      data = path.read_bytes()
      found[name] = data.replace(os.fsencode(folder), b"FOLDER")
  return found


def without_digests(found: dict[str, Any]) -> dict[str, Any]:
  """Leave out what holds the folder's name: configurations, and digests."""
  kept = {}
  for name, data in found.items():
    if name.endswith(".gin"):
      continue
    if name.endswith("manifest.json"):
      manifest = json.loads(data)
      for key in ("gin", "digest"):
        manifest.pop(key, None)
      data = manifest
    kept[name] = data
  return kept


def largest_difference(swept: pathlib.Path, turns: pathlib.Path) -> float:
  """Compare the parameters of every cell with its own command's."""
  largest = 0.0
  for name in cells():
    pair = [
      bundle.read_latest(folder / name / bundle.BUNDLES)
      for folder in (swept / "cells", turns)
    ]
    ours, theirs = (saved[1].trainable for saved in pair if saved is not None)
    for path, array in ours.items():
      difference = np.abs(array - theirs[path]).max()
      largest = max(largest, float(difference))
  return largest


def main() -> None:
  """Run all of it, and print."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--out", type=pathlib.Path, required=True)
  parser.add_argument("--steps", type=int, default=100)
  args = parser.parse_args()
  out = args.out.absolute()
  out.mkdir(parents=True)
  gin = out / "settings.gin"
  gin.write_text(SETTINGS % args.steps)
  first = next(iter(cells().values()))
  run([*words("train", out / "first", gin), *first])  # compiles, tokenises
  run(sweep(out / "compiles", gin))
  together = run(sweep(out / "swept", gin))
  found: dict[str, Any] = {"steps": args.steps, "sweep_s": round(together, 1)}
  folder = out / "killed"
  found["cells_done_at_kills"] = killed(sweep(folder, gin), folder)
  pair = [content(out / name) for name in ("swept", "killed")]
  found["killed_equals_undisturbed"] = without_digests(
    pair[0]
  ) == without_digests(pair[1])
  print(json.dumps(found), file=sys.stderr, flush=True)
  turns = {
    name: run([*words("train", out / "turns" / name, gin), *flags])
    for name, flags in cells().items()
  }
  found["cells"] = len(turns)
  found["train_commands_s"] = round(sum(turns.values()), 1)
  found["ratio"] = round(found["sweep_s"] / found["train_commands_s"], 3)
  found["largest_difference"] = largest_difference(out / "swept", out / "turns")
  print(json.dumps(found, indent=2))


if __name__ == "__main__":
  main()
