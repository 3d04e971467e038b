"""The job of evaluation commands, as plain values."""

import dataclasses
from collections.abc import Mapping, Sequence

from prompt_tuning.core import bounds
from prompt_tuning.jobs.settings import EvaluationSettings, MeshShape
from prompt_tuning.models.t5.config import T5Config


@dataclasses.dataclass(frozen=True)
class EvalJob:
  """The settings of `eval`.

  Attributes:
    model: the backbone.
    checkpoint_path: its weights.
    prompt_file: a prompt, several, or name -> prompt; or the bundle of one run
      that tuned the model. None, alone or in a list, is the frozen model. Each
      prompt is scored on every task. If the names are those of the tasks, or if
      the runs of a training were trained on these tasks, each is scored only on
      its own task.
    evaluation: on which data and how to evaluate.
    output_dir: folder for T5X's files.
    mesh: arrangement of the devices.
    restore_dtype: of the weights.
    json_write_n_results: predictions written per task; None for all.
  """

  model: T5Config
  checkpoint_path: str
  evaluation: EvaluationSettings
  output_dir: str
  prompt_file: str | Sequence[str | None] | Mapping[str, str | None] | None = (
    None
  )
  mesh: MeshShape = dataclasses.field(default_factory=MeshShape)
  restore_dtype: str = "float32"
  json_write_n_results: int | None = None

  def __post_init__(self) -> None:
    self.evaluation.dataset.insist_on_split()
    results = self.json_write_n_results
    bounds.insist_whole("JSON_WRITE_N_RESULTS", results, 0, optional=True)
