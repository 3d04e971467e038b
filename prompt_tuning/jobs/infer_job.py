"""The job of inference commands, as plain values."""

import dataclasses
from collections.abc import Mapping

from prompt_tuning.core import bounds
from prompt_tuning.infer.predict import DECODE_LENGTH
from prompt_tuning.jobs.settings import Dataset, MeshShape
from prompt_tuning.models.t5.config import T5Config
from prompt_tuning.models.t5.decoding import DecodingMethod


@dataclasses.dataclass(frozen=True)
class InferJob:
  """The settings of `infer` and `score`.

  Attributes:
    mode: `predict`, `predict_with_aux` or `score`.
    model: the backbone.
    checkpoint_path: its weights.
    output_dir: where the lines go.
    decoder: how to decode.
    dataset: the task to answer; its lengths also limit the texts of a file.
    input_file: answered instead of the task: a text file of one input per line,
      or a `.jsonl`, `.json`, `.csv` or `.tsv` file with `inputs`.
    prompt_file: a prompt; or name -> prompt, of which every example names one
      in its field `prompt`. None, also as one of them: the plain model.
    max_decode_length: positions to decode.
    checkpoint_period: batches between writes, at which a killed job continues.
    num_shards: jobs that share the work; --shard_id says which this one is.
    seed: of sampling.
    mesh: arrangement of the devices.
    restore_dtype: of the weights.
  """

  mode: str
  model: T5Config
  checkpoint_path: str
  output_dir: str
  decoder: DecodingMethod
  dataset: Dataset
  input_file: str | None = None
  prompt_file: str | Mapping[str, str | None] | None = None
  max_decode_length: int = DECODE_LENGTH
  checkpoint_period: int = 100
  num_shards: int = 1
  seed: int = 0
  mesh: MeshShape = dataclasses.field(default_factory=MeshShape)
  restore_dtype: str = "bfloat16"

  def __post_init__(self) -> None:
    bounds.insist_whole("MAX_DECODE_LENGTH", self.max_decode_length, 1)
    bounds.insist_whole("CHECKPOINT_PERIOD", self.checkpoint_period, 1)
    bounds.insist_whole("NUM_SHARDS", self.num_shards, 1)
    if self.input_file is None and not self.dataset.names:
      raise ValueError("No inputs: set MIXTURE_OR_TASK_NAME or INPUT_FILE.")
    if self.input_file is None:
      self.dataset.insist_on_split()
