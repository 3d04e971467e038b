"""The loss of a model in pre-training on text that it has not seen."""

import itertools

import numpy as np
from jax.sharding import Mesh

from prompt_tuning.checkpoints.backbone import Backbone
from prompt_tuning.core.types import Params
from prompt_tuning.data import corpus
from prompt_tuning.data.vocabulary import Vocabulary
from prompt_tuning.infer.predict import Predictor
from prompt_tuning.jobs.eval_loss import EvalLoss
from prompt_tuning.jobs.pretrain_job import PretrainJob, Stage
from prompt_tuning.jobs.setup import Setup
from prompt_tuning.train import loop

# How much is read of a held-out text, in words, and written after it, in
# tokens.
_OPENING_WORDS, _CONTINUATION = 24, 24
_SENTINEL = "<extra_id_"


class HeldOut:
  """The loss on every corpus's held-out documents."""

  def __init__(
    self,
    job: PretrainJob,
    stage: Stage,
    setup: Setup,
    mesh: Mesh | None,
  ):
    """Read the documents.

    Args:
      job: the whole job.
      stage: how texts become examples.
      setup: what trains.
      mesh: where everything lies.
    """
    (run,) = job.train_job(stage).experiment.runs
    self._losses = []
    for source in job.corpora:
      if corpus.VALIDATION not in source.splits:
        continue
      task = corpus.declare(source, stage.denoising)
      dataset = job.dataset(stage, task.name, corpus.VALIDATION)
      self._losses.append(
        EvalLoss(
          dataset,
          [run._replace(task=task.name)],
          setup,
          job.eval_steps,
          job.model.vocab_size,
          None,
          mesh,
          job.mesh.rules,
        )
      )

  def __call__(self, trainable: Params) -> list[loop.RunEvaluation]:
    """Compute the losses, see `loop.Evaluator`; their mean, negated, scores."""
    metrics: dict[str, float] = {}
    for loss in self._losses:
      metrics |= loss(trainable)[0]
    values = [v for tag, v in metrics.items() if tag.endswith("/loss")]
    score = -float(np.mean(values)) if values else 0.0
    return [loop.RunEvaluation(score, {}, metrics)]


def sentinel_share(
  job: PretrainJob, model: Backbone, vocabulary: Vocabulary, mesh: Mesh | None
) -> float | None:
  """Continue held-out texts; count the continuations that have a sentinel.

  Args:
    job: gives the texts.
    model: what continues them, greedily.
    vocabulary: of the model.
    mesh: where the model lies.

  Returns:
    The share, between 0 and 1; None without held-out texts.
  """
  documents = itertools.chain.from_iterable(
    source.documents(corpus.VALIDATION) for source in job.texts
  )
  openings = [
    " ".join(document.text.split()[:_OPENING_WORDS])
    for document in itertools.islice(documents, job.num_continuations)
  ]
  if not openings:
    return None
  predictor = Predictor(model.config, model.params, vocabulary, mesh=mesh)
  written = predictor.predict(predictor.encode(openings), length=_CONTINUATION)
  return sum(_SENTINEL in answer.text for answer in written) / len(written)
