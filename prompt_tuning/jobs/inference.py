"""A frozen model with prompts, as evaluation and inference jobs name them."""

from typing import Any, NamedTuple

from prompt_tuning.checkpoints import backbone
from prompt_tuning.checkpoints.backbone import Backbone
from prompt_tuning.infer.batching import Batching
from prompt_tuning.infer.predict import Predictor
from prompt_tuning.jobs import feed, load, same_vocabulary
from prompt_tuning.jobs.eval_job import EvalJob
from prompt_tuning.jobs.infer_job import InferJob
from prompt_tuning.jobs.load import Tuned
from prompt_tuning.jobs.settings import Dataset


class Ready(NamedTuple):
  """A model with prompts, ready to answer.

  Attributes:
    model: the backbone, or the tuned model in its place.
    prompts: the runs.
    predictor: both together.
  """

  model: Backbone
  prompts: Tuned
  predictor: Predictor


def prepare(job: EvalJob | InferJob, dataset: Dataset) -> Ready:
  """Restore a job's model and load its prompts.

  Args:
    job: names them.
    dataset: vocabulary, batch size and length of inputs.

  Returns:
    What can answer.

  Raises:
    ValueError: prompts of another model or vocabulary, a mesh that does not
      fit.
    CheckpointError: something cannot be read.
  """
  mesh = job.mesh.build()
  vocabulary = feed.open_vocabulary(dataset, job.model.vocab_size)
  same_vocabulary.insist_of_model(job.checkpoint_path, vocabulary)
  model = backbone.load(
    job.checkpoint_path, job.model, mesh, job.mesh.rules, job.restore_dtype
  )
  prompts = load.load_several(job.prompt_file, model, vocabulary)
  model = load.applied(prompts, model)
  predictor = Predictor(
    model.config,
    model.params,
    vocabulary,
    runs=prompts.runs,
    input_length=dataset.lengths["inputs"],
    batching=Batching(dataset.batch_size),
    mesh=mesh,
  )
  return Ready(model, prompts, predictor)


def settings(job: EvalJob | InferJob, ready: Ready) -> dict[str, Any]:
  """Describe everything that decides the answers: model, vocabulary, dtypes.

  Args:
    job: the job.
    ready: the model with prompts.

  Returns:
    JSON values.
  """
  return {
    "backbone": ready.model.fingerprint,
    "vocabulary": ready.predictor.vocabulary.sha256,
    "dtypes": [str(job.model.dtype), job.restore_dtype],
  }
