"""A frozen model with prompts, as evaluation and inference jobs name them."""

from typing import NamedTuple

from prompt_tuning.infer.batching import Batching
from prompt_tuning.infer.predict import Predictor
from prompt_tuning.launch import backbone, feeding, tuned
from prompt_tuning.launch.backbone import Backbone
from prompt_tuning.launch.infer_jobs import EvalJob, InferJob
from prompt_tuning.launch.settings import Dataset
from prompt_tuning.launch.tuned import Tuned


class Ready(NamedTuple):
  """What can answer.

  Attributes:
    model: the backbone, or the tuned model in its place.
    prompts: the runs.
    predictor: both together.
    vocabulary: hash of the vocabulary.
  """

  model: Backbone
  prompts: Tuned
  predictor: Predictor
  vocabulary: str


def prepare(job: EvalJob | InferJob, dataset: Dataset) -> Ready:
  """Restore a job's model and load its prompts.

  Args:
    job: names them.
    dataset: vocabulary, batch size and length of inputs.

  Returns:
    What can answer.

  Raises:
    ValueError: prompts of another model, a mesh that does not fit.
    CheckpointError: something cannot be read.
  """
  mesh = job.mesh.build()
  codec = feeding.open_vocabulary(dataset)
  model = backbone.load(
    job.checkpoint_path, job.model, mesh, job.mesh.rules, job.restore_dtype
  )
  prompts = tuned.load_several(job.prompt_file, model)
  model = tuned.applied(prompts, model)
  predictor = Predictor(
    model.config,
    model.params,
    codec,
    runs=prompts.runs,
    input_length=dataset.lengths["inputs"],
    batching=Batching(dataset.batch_size),
    mesh=mesh,
  )
  return Ready(model, prompts, predictor, codec.sha256)
