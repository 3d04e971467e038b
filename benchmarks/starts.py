"""How long a person waits: whole processes, from the shell to the prompt.

Warm: what is compiled and tokenised is there, from a process before. Looking
takes no model, and is held against `import jax`; the rest against PEFT's
shortest script that does the same, on the same model and text. Sides take
turns. CPU seconds (user and system) count beside seconds: on a shared machine
they depend less on the neighbours.
"""

import json
import os
import pathlib
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.turns import spread
from prompt_tuning.checkpoints import hf, restore, sizes
from prompt_tuning.core import embedded
from prompt_tuning.data import skills

IMPORT_JAX, PEFT = "import jax", "PEFT"
HELP, INSPECT, INFER, API, TRAIN, STEP = (
  *("train --help", "inspect", "infer", "the API's first answer"),
  *("train, 20 steps", "train T5 1.1 small, one step"),
)
SKILL, ROWS, LENGTH, PROMPT = "reverse", 8, 8, 8
TEXTS = ("hot loud old", "big small red")

# What its users would write, and nothing else.
_ANSWER = """
import sys
import peft, sentencepiece, torch, transformers
base, adapter, vocabulary, *texts = sys.argv[1:]
pieces = sentencepiece.SentencePieceProcessor(model_file=vocabulary)
model = transformers.T5ForConditionalGeneration.from_pretrained(base)
model = peft.PeftModel.from_pretrained(model, adapter).eval()
for text in texts:
  ids = torch.tensor([[*pieces.encode(text), 1]])
  mask = torch.ones_like(ids)
  found = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=8)
  print(pieces.decode([i for i in found[0].tolist() if i > 1]))
"""
_TRAIN = """
import json, sys
import peft, sentencepiece, torch, transformers
base, file, vocabulary, steps, out = sys.argv[1:]
pieces = sentencepiece.SentencePieceProcessor(model_file=vocabulary)
model = transformers.T5ForConditionalGeneration.from_pretrained(base)
model = peft.get_peft_model(model, peft.PromptTuningConfig(
  task_type="SEQ_2_SEQ_LM", num_virtual_tokens=8, num_transformer_submodules=1))
optimizer = torch.optim.AdamW(
  [p for p in model.parameters() if p.requires_grad], 0.3)
rows = [json.loads(line) for line in open(file)]
pad = torch.nn.utils.rnn.pad_sequence

def ids(texts, padding):
  rows = [torch.tensor([*pieces.encode(text), 1]) for text in texts]
  return pad(rows, batch_first=True, padding_value=padding)

for step in range(int(steps)):
  batch = rows[8 * step : 8 * step + 8]
  inputs = ids([row["inputs"] for row in batch], 0)
  labels = ids([row["targets"] for row in batch], -100)
  optimizer.zero_grad()
  model(input_ids=inputs, attention_mask=(inputs != 0).long(),
        labels=labels).loss.backward()
  optimizer.step()
model.save_pretrained(out)
"""
_API = """
import sys
import prompt_tuning as pt
adapter, *texts = sys.argv[1:]
model = pt.load_model().with_tuned({"it": adapter})
print(*model.predict(texts, length=8), sep="\\n")
"""


class Sides(NamedTuple):
  """Two commands that do the same.

  Attributes:
    ours: of this project.
    other: what it is held against.
    name: of the other side.
    prints_alike: whether both must print the same.
  """

  ours: Sequence[str]
  other: Sequence[str]
  name: str
  prints_alike: bool = False


def measure_starts(
  small: pathlib.Path, scratch: pathlib.Path, rounds: int = 3
) -> list[dict[str, Any]]:
  """Time whole processes.

  Args:
    small: Hugging Face checkpoint of a T5 1.1 small.
    scratch: an empty folder.
    rounds: of each pair; its sides take turns.

  Returns:
    One row per pair: spreads of both sides' seconds and CPU seconds, and of
    the ratios.

  Raises:
    RuntimeError: a side failed, or answers other than the other.
  """
  environment = dict(
    os.environ,
    JAX_ENABLE_COMPILATION_CACHE="1",
    JAX_COMPILATION_CACHE_DIR=str(scratch / "programs"),
    PROMPT_TUNING_CACHE_DIR=str(scratch / "tokens"),
    PYTHONWARNINGS="ignore",
    TRANSFORMERS_VERBOSITY="error",
    HF_HUB_OFFLINE="1",
  )
  rows = []
  for what, sides in pairs(small, scratch).items():
    commands = {"project": sides.ours, "other": sides.other}
    printed = {s: _run(c, environment)[0] for s, c in commands.items()}  # warms
    if sides.prints_alike and len(set(printed.values())) > 1:
      raise RuntimeError(f"{what}: the sides answer differently: {printed}")
    times: dict[str, list[tuple[float, float]]] = {s: [] for s in commands}
    for _ in range(rounds):
      for side, command in commands.items():
        times[side].append(_run(command, environment)[1])
    rows.append({"what": what, "over": sides.name, **_row(times)})
  return rows


def _row(times: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, Any]:
  row: dict[str, Any] = {side: {} for side in (*times, "ratios")}
  for number, kind in enumerate(("seconds", "cpu_s")):
    of_sides = {s: [pair[number] for pair in of] for s, of in times.items()}
    for side, values in of_sides.items():
      row[side][kind] = spread(values)
    turns = zip(of_sides["project"], of_sides["other"], strict=True)
    row["ratios"][kind] = spread(a / b for a, b in turns)
  return row


def pairs(small: pathlib.Path, scratch: pathlib.Path) -> dict[str, Sides]:
  """Make what the sides read, and their commands.

  Args:
    small: Hugging Face checkpoint of a T5 1.1 small.
    scratch: where to.

  Returns:
    What is done -> its sides.
  """
  base, adapter, data = (
    scratch / name for name in ("base", "adapter", "rows.jsonl")
  )
  model = embedded.checkpoint(embedded.DEFAULT)
  vocabulary = embedded.vocabulary(embedded.DEFAULT)
  checkpoint = restore.open_checkpoint(embedded.DEFAULT)
  hf.write_hf(base, checkpoint.params, sizes.infer_config(checkpoint))
  rows = list(skills.examples(SKILL, "train"))[: ROWS * 20]
  data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
  lines = scratch / "lines.txt"
  lines.write_text("".join(f"{text}\n" for text in TEXTS))
  python, ours = (
    sys.executable,
    (sys.executable, "-m", "prompt_tuning.launch.main"),
  )
  train = [python, "-c", _TRAIN]
  _run(
    [*train, str(base), str(data), vocabulary, "1", str(adapter)],
    dict(os.environ, HF_HUB_OFFLINE="1"),
  )
  answer = [python, "-c", _ANSWER, str(base), str(adapter), vocabulary, *TEXTS]
  jax = [python, "-c", "import jax"]
  return {
    HELP: Sides([*ours, "train", "--help"], jax, IMPORT_JAX),
    INSPECT: Sides([*ours, "inspect", str(model)], jax, IMPORT_JAX),
    INFER: Sides(
      _fresh([*ours, *_infer(lines, adapter, scratch)], scratch / "answers"),
      answer,
      PEFT,
    ),
    API: Sides([python, "-c", _API, str(adapter), *TEXTS], answer, PEFT, True),
    TRAIN: Sides(
      _fresh(
        [*ours, *_train("embedded", scratch / "run", 20)], scratch / "run"
      ),
      [*train, str(base), str(data), vocabulary, "20", str(scratch / "saved")],
      PEFT,
    ),
    STEP: Sides(
      _fresh(
        [
          *(*ours, *_train("t5_1_1_small", scratch / "step", 1)),
          f"--gin.INITIAL_CHECKPOINT_PATH='{small}'",
          f"--gin.VOCABULARY_FILE='{embedded.DEFAULT}'",
        ],
        scratch / "step",
      ),
      [*train, str(small), str(data), vocabulary, "1", str(scratch / "saved")],
      PEFT,
    ),
  }


def _infer(
  lines: pathlib.Path, adapter: pathlib.Path, scratch: pathlib.Path
) -> list[str]:
  return [
    *("infer", "--gin_file=models/embedded.gin"),
    *("--gin_file=models/decoding/greedy.gin",),
    "--gin_file=runs/prompt_infer.gin",
    f"--gin.CHECKPOINT_PATH='{embedded.DEFAULT}'",
    f"--gin.PROMPT_FILE='{adapter}'",
    f"--gin.INPUT_FILE='{lines}'",
    f"--gin.INFER_OUTPUT_DIR='{scratch / 'answers'}'",
    "--gin.RESTORE_DTYPE='float32'",
    f"--gin.MAX_DECODE_LENGTH={LENGTH}",
  ]


def _train(model: str, folder: pathlib.Path, steps: int) -> list[str]:
  return [
    *("train", f"--gin_file=models/{model}_prompt.gin"),
    "--gin_file=runs/prompt_finetune.gin",
    f"--gin.MODEL_DIR='{folder}'",
    f"--gin.MIXTURE_OR_TASK_NAME='skill_{SKILL}'",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 16}",
    "--gin.RESTORED_STEP=0",
    "--gin.TRAIN_STEPS=None",
    f"--gin.TRAIN_STEPS_RELATIVE={steps}",
    f"--gin.PROMPT_LENGTH={PROMPT}",
    f"--gin.BATCH_SIZE={ROWS}",
    "--gin.train.evaluation=None",
  ]


def _fresh(command: Sequence[str], folder: pathlib.Path) -> list[str]:
  """Run a command where nothing is done already."""
  quoted = " ".join(f'"{word}"' for word in command)
  return ["sh", "-c", f'rm -rf "{folder}" && exec {quoted}']


def _run(
  command: Sequence[str], environment: Mapping[str, str]
) -> tuple[str, tuple[float, float]]:
  """Run a command.

  Args:
    command: what.
    environment: its variables.

  Returns:
    What it prints; its seconds, and those that CPUs worked for it.

  Raises:
    RuntimeError: it failed.
  """
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  start = time.perf_counter()
  done = subprocess.run(
    command, env=environment, capture_output=True, text=True
  )
  seconds = time.perf_counter() - start
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  if done.returncode:
    raise RuntimeError(f"{list(command)}\n{done.stderr[-2000:]}")
  cpu = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
  return done.stdout, (seconds, cpu)
