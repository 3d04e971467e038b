"""Answers to a task or a text file, as JSON lines.

A job that was killed continues where it stopped.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax

from prompt_tuning.core import files
from prompt_tuning.data import templated
from prompt_tuning.infer import modes, outputs, sources
from prompt_tuning.infer.inputs import Rows
from prompt_tuning.jobs import feed, identity, inference
from prompt_tuning.jobs.infer_job import InferJob
from prompt_tuning.jobs.inference import Ready
from prompt_tuning.jobs.load import Tuned

# Field of an example that names its prompt, if there are several.
PROMPT_FIELD = "prompt"


def infer(
  job: InferJob,
  data_dir: str | None = None,
  shard_id: int = 0,
) -> list[str]:
  """Answer every example; what was answered before is kept.

  Args:
    job: what to do.
    data_dir: TFDS's data directory.
    shard_id: which of the job's shards to answer.

  Returns:
    The files, one per task.

  Raises:
    ValueError: the job cannot be done, or was begun with other settings.
    CheckpointError: something cannot be read.
  """
  if jax.process_count() > 1:
    raise ValueError(
      "Several processes cannot write one file. Divide the work by NUM_SHARDS "
      "and --shard_id, with one process for each part."
    )
  shard = outputs.Shard(shard_id, job.num_shards)
  files.ensure_writable(job.output_dir, "INFER_OUTPUT_DIR")
  ready = inference.prepare(job, job.dataset)
  decoding: dict[str, Any] = {
    "length": job.max_decode_length,
    "method": job.decoder,
    "seed": job.seed,
  }
  settings = _settings(job, ready)
  written = []
  for name, rows, examples in _inputs(job, data_dir):
    compute = modes.compute(
      job.mode,
      ready.predictor,
      lambda example: _run_of(example, ready.prompts),
      rows,
      **decoding,
    )
    output = outputs.Output(
      job.output_dir,
      name,
      job.mode,
      settings,
      shard,
      chunk_size=job.checkpoint_period * job.dataset.batch_size,
    )
    written.append(str(output.write(examples, compute)))
  return written


def _inputs(
  job: InferJob, data_dir: str | None
) -> Iterator[tuple[str, Rows | None, Iterator[dict[str, Any]]]]:
  """List the inputs: (first part of the output's name, tokens, examples).

  Templates give tokens, because their texts do not say where virtual tokens
  stand.
  """
  if job.input_file is not None:
    name = job.input_file.replace("\\", "/").rpartition("/")[2]
    # Remove only the ending of the format: `dev.en.txt` is not `dev.de.txt`.
    yield name.rpartition(".")[0] or name, None, sources.read(job.input_file)
    return
  dataset = job.dataset
  for name in dataset.names:
    for task, tokens in feed.members(dataset, name, data_dir):
      rows = tokens.inputs if templated.is_templated(task) else None
      examples = (tokens.example(i) for i in range(len(tokens)))
      yield task.name, rows, examples


def _run_of(example: Mapping[str, Any], prompts: Tuned) -> int:
  """Find the prompt that an example names."""
  if len(prompts.names) == 1:
    return 0
  asked = example.get(PROMPT_FIELD)
  if asked not in prompts.names:
    raise ValueError(
      f"PROMPT_FILE names {len(prompts.names)} prompts "
      f"({', '.join(prompts.names)}), so every example must name one in its "
      f"field {PROMPT_FIELD!r}; got {asked!r}. To use a single run, give its "
      "bundle as PROMPT_FILE."
    )
  return prompts.names.index(asked)


def _settings(job: InferJob, ready: Ready) -> dict[str, Any]:
  """Describe all that decides the answers, so that a job can continue."""
  names, runs = ready.prompts.names, ready.prompts.runs
  described = identity.describe(
    {
      **inference.settings(job, ready),
      "prompts": dict(zip(names, runs.placements, strict=True)),
      "delta": runs.delta,
      "decoder": None if job.mode == "score" else job.decoder,
      "length": job.max_decode_length,
      "seed": job.seed,
      "batch_size": job.dataset.batch_size,
      "input_lengths": job.dataset.lengths,
    }
  )
  assert isinstance(described, dict)
  return described
