"""A frozen model and its prompts in a notebook; no TensorFlow, no gin.

model = api.load_model("checkpoint_1100000", vocabulary="sentencepiece.model")
model = model.with_prompts({"boolq": "boolq.npy", "rte": "rte_adapter/"})
model.predict(["passage: ... question: ..."], prompt="boolq")
model.score(["hypothesis: ... premise: ..."], ["entailment"], prompt="rte")
"""

import dataclasses
import logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from prompt_tuning.checkpoints import (
  bundle,
  fingerprint,
  prompts,
  restore,
  sizes,
)
from prompt_tuning.checkpoints.bundle import Bundle
from prompt_tuning.core import tree
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.placement import Placement
from prompt_tuning.core.types import DType
from prompt_tuning.data import spec, vocabulary
from prompt_tuning.infer import ensemble, rank
from prompt_tuning.infer.batching import Batching
from prompt_tuning.infer.ensemble import Vote
from prompt_tuning.infer.evaluate import GENERATION, EvalSet, Evaluator, Job
from prompt_tuning.infer.predict import DECODE_LENGTH, Predictor
from prompt_tuning.infer.rank import Normalise, Ranking
from prompt_tuning.infer.runs import Runs, join
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import network, site_shapes
from prompt_tuning.models.t5.decoding import Method
from prompt_tuning.train import loop

# A file or folder that holds a prompt, its vectors [P, H], anything else that
# was tuned, or None for the model without a prompt.
PromptLike = str | os.PathLike[str] | np.ndarray | Runs | None
# A name for all texts, or one for each; None where there is only one prompt.
Prompts = str | Sequence[str] | None

# Where a bundle keeps the vectors of each stack, [1, P, H].
_TRAINED = [f"tuner/{s}/prompt/prompt/prompt" for s in ("encoder", "decoder")]

logger = logging.getLogger(__name__)


def load_model(
  path: str | os.PathLike[str],
  vocabulary_path: str | None = None,
  *,
  size: str | None = None,
  dtype: DType = jnp.float32,
  input_length: int | None = 512,
  batch_size: int = 32,
) -> "Model":
  """Load a frozen model.

  Args:
    path: a checkpoint of T5X (`checkpoint_<step>`, native or Orbax) or Hugging
      Face (safetensors).
    vocabulary_path: its SentencePiece file; None for the one that the
      environment variable PROMPT_TUNING_VOCABULARY names.
    size: a published size, such as `t5_1_1_base`; None reads the shapes off
      the checkpoint.
    dtype: of weights and activations.
    input_length: most tokens of a text, EOS included; longer ones are cut, with
      a warning.
    batch_size: most rows of a batch.

  Returns:
    The model, without prompts.

  Raises:
    CheckpointError: no checkpoint, a damaged one, or one of another size.
    ValueError: an unknown size, or no vocabulary.
  """
  codec = vocabulary.load(vocabulary_path)
  checkpoint = restore.open_checkpoint(path)
  if size is None:
    config = sizes.infer_config(checkpoint)
  else:
    config = t5_config.get(size)
  config = dataclasses.replace(config, dtype=dtype, param_dtype=dtype)
  unwanted = (
    [prompts.PARAMETER] if prompts.PARAMETER in checkpoint.params else []
  )
  if unwanted:
    logger.warning(
      "%s also holds a prompt, which is left out; give the same path to "
      "with_prompts to use it.",
      path,
    )
  params = restore.restore(
    checkpoint, network.abstract_params(config), ignore=unwanted
  )
  batching = Batching(batch_size)
  return Model(
    Predictor(
      config, params, codec, input_length=input_length, batching=batching
    )
  )


def load_prompt(path: str | os.PathLike[str], width: int | None = None) -> Runs:
  """Load a prompt.

  Args:
    path: a bundle, or the MODEL_DIR of a single run (its best); a `.npy` file,
      a PEFT adapter, or a T5X checkpoint with a prompt, which all stand before
      the input text.
    width: d_model of the model it shall go with, if known.

  Returns:
    The prompt as one run.

  Raises:
    CheckpointError: no prompt, a damaged one, or one of another width.
    ValueError: a bundle of several runs, or of something else.
  """
  saved = _read_bundle(path)
  if saved is not None:
    return _from_bundle(saved, path)
  loaded = prompts.insist(restore.open_prompt(path), width=width)
  for note in loaded.notes:
    logger.info("%s: %s", path, note)
  return from_vectors(loaded.values)


def from_vectors(values: np.ndarray) -> Runs:
  """Make a prompt of vectors [P, H]; it stands before the input text.

  Raises:
    ValueError: not a matrix.
  """
  if values.ndim != 2:
    raise ValueError(f"A prompt is a matrix [P, H]; got {list(values.shape)}.")
  placement = Placement(encoder_prefix=tuple(range(len(values))))
  virtual = jnp.asarray(values, jnp.float32)
  return Runs(Delta(virtual=virtual[None]), (placement,))


def _read_bundle(path: str | os.PathLike[str]) -> Bundle | None:
  """Read a bundle, or the best one of a run; None where there is neither."""
  folder = pathlib.Path(path)
  if bundle.is_bundle(folder):
    return bundle.read(folder)
  best = sorted((folder / loop.BEST).glob("run_*"))
  if len(best) > 1:
    raise ValueError(
      f"{path} holds {len(best)} runs; name one of them: "
      f"{best[0]}/step_..., and so on."
    )
  found = bundle.read_latest(best[0]) if best else None
  return found[1] if found else None


def _from_bundle(saved: Bundle, path: str | os.PathLike[str]) -> Runs:
  """Take the prompt out of a bundle of one run."""
  placements = saved.manifest["run"]["placements"]
  number = saved.manifest.get("run_index", 0)
  parts = [saved.trainable[p] for p in _TRAINED if p in saved.trainable]
  if len(parts) != len(saved.trainable) or any(len(a) != 1 for a in parts):
    held = {p: list(a.shape) for p, a in saved.trainable.items()}
    raise ValueError(f"{path} is not the bundle of one prompt; it has {held}.")
  described = placements[number]
  fields = dataclasses.fields(Placement)
  placement = Placement(**{f.name: tuple(described[f.name]) for f in fields})
  virtual = jnp.asarray(np.concatenate(parts, axis=1))
  return Runs(Delta(virtual=virtual), (placement,))


@dataclasses.dataclass(frozen=True)
class Model:
  """A frozen model, perhaps with prompts.

  Attributes:
    predictor: model, vocabulary, and one run per prompt.
    names: of the prompts, in the order of the runs; none for the plain model.
  """

  predictor: Predictor
  names: tuple[str, ...] = ()

  def with_prompts(self, named: Mapping[str, PromptLike]) -> "Model":
    """Return the same model with other prompts, which any batch may mix.

    Args:
      named: name -> prompt; None is the model without a prompt.

    Raises:
      CheckpointError: a file without a prompt, or one of another width.
      ValueError: no prompts, several runs under one name, arrays that do not
        fit the model, or a prompt that was tuned with another one.
    """
    runs = join([self._as_runs(name, prompt) for name, prompt in named.items()])
    site_shapes.check(runs.delta, self.predictor.config)
    return Model(dataclasses.replace(self.predictor, runs=runs), tuple(named))

  def predict(
    self,
    texts: Sequence[str],
    prompt: Prompts = None,
    *,
    length: int = DECODE_LENGTH,
    method: Method | None = None,
    seed: int = 0,
  ) -> list[str]:
    """Answer every text.

    Args:
      texts: n inputs.
      prompt: name of the prompt for all texts, or one name for each.
      length: tokens to decode at most.
      method: `Greedy()` by default, `Sampling(...)` or `BeamSearch(...)`.
      seed: of sampling.

    Returns:
      n texts, the best of each where the method gives several.
    """
    asked = self.predictor.encode(texts, self._run_ids(texts, prompt))
    predicted = self.predictor.predict(
      asked, length=length, method=method, seed=seed
    )
    return [prediction.text for prediction in predicted]

  def score(
    self, texts: Sequence[str], targets: Sequence[str], prompt: Prompts = None
  ) -> list[float]:
    """Compute how likely the model gives these answers.

    Args:
      texts: n inputs.
      targets: n answers.
      prompt: see `predict`.

    Returns:
      n log-likelihoods of whole answers, EOS included.
    """
    asked = self.predictor.encode(texts, self._run_ids(texts, prompt))
    return rank.score(self.predictor, asked, targets)

  def rank(
    self,
    texts: Sequence[str],
    candidates: Sequence[str] | Sequence[Sequence[str]],
    prompt: Prompts = None,
    normalise: Normalise = "sum",
  ) -> list[Ranking]:
    """Score all candidates, such as a task's label words, as whole answers.

    Args:
      texts: n inputs.
      candidates: for all texts, or for each its own.
      prompt: see `predict`.
      normalise: `sum`, or `mean` over a candidate's tokens.

    Returns:
      For each text the scores, and the number of the best candidate.
    """
    asked = self.predictor.encode(texts, self._run_ids(texts, prompt))
    return rank.rank(self.predictor, asked, candidates, normalise)

  def vote(
    self,
    texts: Sequence[str],
    members: Sequence[str] | None = None,
    candidates: Sequence[str] | None = None,
    **decoding: Any,
  ) -> list[Vote]:
    """Let several prompts answer every text, and take the majority's answer.

    Args:
      texts: n inputs.
      members: names of the prompts; all of them by default.
      candidates: answers to choose from; None decodes free text.
      **decoding: see `predict`; without candidates only.

    Returns:
      n votes; `ensemble` says how ties are broken.
    """
    names = self.names if members is None else members
    runs = [self._run_id(name) for name in names]
    if candidates is None:
      return ensemble.predict(self.predictor, texts, runs, **decoding)
    return ensemble.classify(self.predictor, texts, candidates, runs)

  def evaluate(
    self,
    task: str,
    examples: Sequence[Mapping[str, Any]],
    prompt: str | None = None,
    by: Sequence[str] = (GENERATION,),
  ) -> dict[str, float]:
    """Compute a task's metrics.

    Args:
      task: its name.
      examples: with `inputs_pretokenized`, `targets_pretokenized` and what else
        the task's metrics need; `data.cache.load_task(...).examples()`.
      prompt: name of the prompt.
      by: `generation`, `rank` or both.

    Returns:
      Metrics in percent, see `infer.evaluate.Result`.
    """
    asked = self.predictor.encode([str(e[spec.INPUTS]) for e in examples])
    dataset = EvalSet(spec.task(task), asked.rows, examples)
    job = Job(dataset, self._run_id(prompt))
    return dict(Evaluator(self.predictor, [job], by)()[0].metrics)

  def _as_runs(self, name: str, prompt: PromptLike) -> Runs:
    if prompt is None:
      return Runs()
    if isinstance(prompt, Runs):
      if len(prompt) != 1:
        raise ValueError(f"{name!r} names {len(prompt)} runs; expected one.")
      return prompt
    if isinstance(prompt, np.ndarray):
      return from_vectors(prompt)
    saved = _read_bundle(prompt)
    if saved is None:
      return load_prompt(prompt, self.predictor.config.emb_dim)
    theirs = saved.manifest["run"]["backbone"]["fingerprint"]
    ours = fingerprint.fingerprint(self.predictor.params)
    if theirs != ours:
      raise ValueError(
        f"{prompt} was tuned with the backbone {theirs}, but this model is "
        f"{ours}: other weights. Load the checkpoint that it was tuned with."
      )
    return _from_bundle(saved, prompt)

  def _run_ids(self, texts: Sequence[str], prompt: Prompts) -> list[int]:
    if isinstance(texts, str):
      raise ValueError(f"Expected a list of texts; got the text {texts!r}.")
    if prompt is None or isinstance(prompt, str):
      return [self._run_id(prompt)] * len(texts)
    return [self._run_id(name) for name in prompt]

  def _run_id(self, name: str | None) -> int:
    if name is None and len(self.names) <= 1:
      return 0
    if name not in self.names:
      raise ValueError(
        f"Unknown prompt {name!r}.{tree.nearest(str(name), self.names)} This "
        f"model has: {', '.join(self.names) or 'none'}."
      )
    return self.names.index(name)
