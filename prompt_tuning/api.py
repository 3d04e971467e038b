"""A frozen model and its prompts in a notebook; no gin.

import prompt_tuning as pt

model = pt.load_model("checkpoint_1100000", "sentencepiece.model")
trained = model.train("taskless_super_glue_rte_v102", steps=1_000)
model = model.with_prompts({"rte": trained, "boolq": "boolq.npy"})
model.predict(["passage: ... question: ..."], prompt="boolq")
model.score(["hypothesis: ... premise: ..."], ["entailment"], prompt="rte")
"""

import contextlib
import dataclasses
import logging
import os
import signal
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from prompt_tuning.checkpoints import backbone, prompts, restore, sizes
from prompt_tuning.checkpoints.backbone import Backbone
from prompt_tuning.core import (
  algebra,
  axes,
  embedded,
  finite,
  partition,
  tree,
)
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.placement import Placement
from prompt_tuning.core.types import DType
from prompt_tuning.data import spec, templated
from prompt_tuning.data import vocabulary as vocabularies
from prompt_tuning.data.in_context import InContext
from prompt_tuning.infer import ensemble, rank
from prompt_tuning.infer.batching import Batching
from prompt_tuning.infer.ensemble import Comparison as Ensemble
from prompt_tuning.infer.ensemble import Vote
from prompt_tuning.infer.evaluate import GENERATION, EvalSet, Evaluator, Job
from prompt_tuning.infer.predict import DECODE_LENGTH, Predictor
from prompt_tuning.infer.rank import Normalise, Ranking
from prompt_tuning.infer.runs import Runs, join
from prompt_tuning.jobs import (
  classes,
  feed,
  recipes,
  same_vocabulary,
  similarity,
)
from prompt_tuning.jobs import load as loading
from prompt_tuning.jobs.comparison import Comparison
from prompt_tuning.jobs.settings import (
  Dataset,
  EvaluationSettings,
  MeshShape,
  listed,
)
from prompt_tuning.jobs.setup import task_words
from prompt_tuning.jobs.similarity import Similarity
from prompt_tuning.jobs.train_job import (
  Duration,
  EvaluationPlan,
  Experiment,
  ModelSource,
  Output,
  TrainJob,
  TunerFactory,
)
from prompt_tuning.jobs.tuning_result import Trained
from prompt_tuning.machine import accelerators, compiled_programs
from prompt_tuning.models.scorers import Scorer, WordsLike
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.models.t5 import quantized, site_shapes
from prompt_tuning.models.t5.decoding import DecodingMethod
from prompt_tuning.train.errors import StoppedError
from prompt_tuning.tuners import interpret
from prompt_tuning.tuners.copying import FromFile
from prompt_tuning.tuners.initializers import (
  ClassLabels,
  Initializer,
  SampledVocabulary,
)
from prompt_tuning.tuners.interpret import Reading
from prompt_tuning.tuners.prompt import Prompt

# A path of something tuned (a run, a bundle, an export, an adapter, a prompt),
# the vectors [P, H] of a prompt, one run, a training (its best step), or None
# for the frozen model.
TunedLike = str | os.PathLike[str] | np.ndarray | Runs | Trained | None
# A name for all texts, or one for each; None if there is only one prompt.
Prompts = str | Sequence[str] | None
# A task by its name, or as `pt.custom.declare` returned it.
Task = str | spec.TaskSpec

logger = logging.getLogger(__name__)


def load_model(
  path: str | os.PathLike[str] = embedded.DEFAULT,
  vocabulary_path: str | None = None,
  *,
  size: str | None = None,
  dtype: DType = jnp.float32,
  weights: str | None = None,
  input_length: int | None = 512,
  batch_size: int = 32,
) -> "Model":
  """Load a frozen model.

  Programs that this process compiles are kept for later processes.

  Args:
    path: a checkpoint of T5X (`checkpoint_<step>`, native or Orbax) or Hugging
      Face (safetensors); by default the small model that ships with the
      package.
    vocabulary_path: its SentencePiece file; None for the embedded model's own,
      or the one that the environment variable PROMPT_TUNING_VOCABULARY names.
    size: a published size, such as `t5_1_1_base`; None takes the shapes from
      the checkpoint.
    dtype: of activations, and of weights unless `weights` is given.
    weights: dtype of the frozen weights, also `int8` or `int4`, which need a
      quarter and about a sixth of float32's memory; None for `dtype`.
    input_length: most tokens of a text, EOS included; longer texts are cut,
      with a warning.
    batch_size: most rows of a batch.

  Returns:
    The model, without prompts.

  Raises:
    CheckpointError: there is no checkpoint, it is damaged, or it has another
      size.
    ValueError: the size is unknown, or the vocabulary is missing or belongs to
      another model.
  """
  accelerators.mention_unused()
  compiled_programs.keep()
  if vocabulary_path is None and str(path).startswith(embedded.SCHEME):
    vocabulary_path = str(path)
  vocabulary = vocabularies.load(vocabulary_path)
  checkpoint = restore.open_checkpoint(path, whole=False)
  if size is None:
    config = sizes.infer_config(checkpoint)
  else:
    config = t5_config.get(size)
  vocabulary.check_fits(config.vocab_size)
  same_vocabulary.insist_of_model(path, vocabulary)
  config = dataclasses.replace(config, dtype=dtype, param_dtype=dtype)
  if prompts.PARAMETER in checkpoint.params:
    logger.warning(
      "%s also holds a prompt, which is not used. To use it, give the same "
      "path to with_prompts.",
      path,
    )
  name, rules = weights or np.dtype(dtype).name, axes.STANDARD_RULES
  model = backbone.load(checkpoint, config, None, rules, name)
  predictor = Predictor(
    model.config,
    model.params,
    vocabulary,
    input_length=input_length,
    batching=Batching(batch_size),
  )
  return Model(predictor, model)


def load(path: str | os.PathLike[str]) -> Runs:
  """Load the learned parameters of one run, of any method.

  Args:
    path: a bundle, the MODEL_DIR of a single run (its best step), an export, a
      `.npy` file, a PEFT adapter, a T5X checkpoint with a prompt, or an address
      on Hugging Face's hub: `hf://user/name`, or with a folder and a revision
      `hf://user/name/folder@main` (needs the extra `hub`). If a file holds only
      vectors, they stand before the input text.

  Returns:
    One run, for `Model.with_tuned`.

  Raises:
    CheckpointError: the path holds nothing tuned, or is damaged.
    ValueError: it holds several runs or a tuned model, or the address leads
      nowhere.
  """
  return loading.load_one(path).runs


def load_prompt(path: str | os.PathLike[str]) -> Runs:
  """Load a prompt; an older name of `load`."""
  return load(path)


def from_vectors(values: np.ndarray) -> Runs:
  """Make a prompt from vectors [P, H]; it stands before the input text.

  Raises:
    ValueError: it is not a matrix, has no rows, or has numbers that float32
      cannot hold.
  """
  values = np.asarray(values)
  if values.ndim != 2 or not values.size:
    raise ValueError(
      "A prompt is a matrix [P, H], P and H at least 1; got "
      f"{list(values.shape)}."
    )
  if unfit := finite.fault(values):
    raise ValueError(f"A prompt has {finite.EXPECTED}; got {unfit}.")
  placement = Placement(encoder_prefix=tuple(range(len(values))))
  virtual = jnp.asarray(values, jnp.float32)
  return Runs(Delta(virtual=virtual[None]), (placement,))


@dataclasses.dataclass(frozen=True)
class Model:
  """A frozen model, perhaps with prompts.

  Attributes:
    predictor: model, vocabulary, and one run per prompt.
    backbone: the frozen model, and what identifies it.
    names: of the prompts, in the order of the runs; empty for the frozen model
      alone.
  """

  predictor: Predictor = dataclasses.field(repr=False)
  backbone: Backbone = dataclasses.field(repr=False)
  names: tuple[str, ...] = ()

  def with_tuned(self, named: Mapping[str, TunedLike]) -> "Model":
    """Return the same model with prompts, or what other methods learned.

    One batch may use several of them.

    Args:
      named: name -> what was tuned; None is the frozen model. For a training
        on several tasks, the name is that of a task, which takes the best run
        of this task, or the name of a run.

    Raises:
      CheckpointError: a file holds nothing tuned.
      ValueError: there are no names, one name stands for several runs, arrays
        do not fit the model, or something was tuned with another model.
    """
    if not isinstance(named, Mapping) or not named:
      raise ValueError(
        "Expected names and what was tuned, such as {'rte': 'rte.npy'}; got "
        f"{named!r:.80}."
      )
    parts = {n: self._as_runs(n, tuned) for n, tuned in named.items()}
    for name, part in parts.items():
      if faults := algebra.faults(part.delta, 1):
        raise ValueError(f"{name!r} cannot be used: {faults[0]}")
    runs = join(list(parts.values()))
    site_shapes.check(runs.delta, self.predictor.config)
    predictor = dataclasses.replace(self.predictor, runs=runs)
    return Model(predictor, self.backbone, tuple(named))

  def with_prompts(self, named: Mapping[str, TunedLike]) -> "Model":
    """Return the same model with these prompts, see `with_tuned`."""
    return self.with_tuned(named)

  def predict(
    self,
    texts: Sequence[str],
    prompt: Prompts = None,
    *,
    length: int = DECODE_LENGTH,
    method: DecodingMethod | None = None,
    seed: int = 0,
  ) -> list[str]:
    """Answer every text.

    Args:
      texts: n inputs.
      prompt: name of the prompt for all texts, or one name for each text.
      length: most tokens to decode.
      method: `Greedy()` by default, `Sampling(...)` or `BeamSearch(...)`.
      seed: of sampling.

    Returns:
      n texts; if the method gives several answers, the best of each.
    """
    asked = self.predictor.encode(texts, self._run_ids(texts, prompt))
    predicted = self.predictor.predict(
      asked, length=length, method=method, seed=seed
    )
    return [prediction.text for prediction in predicted]

  def score(
    self, texts: Sequence[str], targets: Sequence[str], prompt: Prompts = None
  ) -> list[float]:
    """Compute how likely these answers are under the model.

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
      candidates: one list for all texts, or one list for each text.
      prompt: see `predict`.
      normalise: `sum` or `mean` over a candidate's tokens.

    Returns:
      For each text the scores, and the index of the best candidate.
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
      **decoding: see `predict`; only without candidates.

    Returns:
      n votes; `ensemble` says how ties are broken.
    """
    runs = self._members(members)
    if candidates is None:
      return ensemble.predict(self.predictor, texts, runs, **decoding)
    return ensemble.classify(self.predictor, texts, candidates, runs)

  def evaluate(
    self,
    task: Task,
    examples: Sequence[Mapping[str, Any]] | None = None,
    prompt: str | None = None,
    by: str | Sequence[str] = GENERATION,
    *,
    scorer: Scorer | None = None,
    label_words: WordsLike = None,
    context: InContext | None = None,
    data_dir: str | None = None,
    cache_dir: str | None = None,
  ) -> dict[str, float]:
    """Compute a task's metrics.

    Args:
      task: the task.
      examples: with `inputs_pretokenized`, `targets_pretokenized` and all other
        fields that the task's metrics need; None reads the task's validation
        split, or its test split if it has no validation split.
      prompt: name of the prompt.
      by: `generation`, `rank` or both.
      scorer: how ranking scores classes, one of `pt.scorers`; None scores the
        label words as whole targets.
      label_words: the words that the scorer scores; None for the task's own.
      context: instruction and demonstrations before every input, a
        `pt.InContext`; None for neither.
      data_dir: TFDS's data directory.
      cache_dir: folder of tokenised examples; None for the default folder.

    Returns:
      Metrics in percent, see `infer.evaluate.Result`.

    Raises:
      ValueError: the task or prompt is unknown, examples cannot be used here,
        the scorer cannot score the classes, or weights or output rows are for
        other words.
    """
    task_spec, run = spec.task(_name(task)), self._run_id(prompt)
    if examples is None:
      dataset = self._eval_set(task_spec, data_dir, cache_dir, context)
    elif context is not None:
      raise ValueError(
        "With a context, only a split of a task can be scored: leave "
        "`examples` out."
      )
    elif templated.is_templated(task_spec):
      raise ValueError(
        f"{task_spec.name} has a template, which needs rows instead of texts: "
        "leave `examples` out."
      )
    else:
      asked = self.predictor.encode(_inputs_of(examples), run)
      dataset = EvalSet(task_spec, asked.rows, examples)
    if scorer is not None:
      runs, scored = self.predictor.runs, (task_spec.name, label_words, scorer)
      classes.insist_on_weighed(*scored, runs.weighed_words_of(run))
      classes.insist_on_answers(*scored, runs.answers_of(run))
      encode = self.predictor.vocabulary.encode
      table = classes.of_task(task_spec.name, label_words, encode)
      scorer.insist_reads(table)
      dataset = dataclasses.replace(dataset, classes=table)
    jobs = [Job(dataset, run)]
    evaluator = Evaluator(self.predictor, jobs, listed(by), scorer=scorer)
    return dict(evaluator()[0].metrics)

  def evaluate_vote(
    self,
    task: Task,
    members: Sequence[str] | None = None,
    by: str | Sequence[str] = GENERATION,
    *,
    data_dir: str | None = None,
    cache_dir: str | None = None,
  ) -> Ensemble:
    """Compute a task's metrics for several prompts, and for their vote.

    Args:
      task: the task; its validation split is read, or its test split if it has
        no validation split.
      members: names of the prompts; all of them by default.
      by: see `evaluate`.
      data_dir: see `evaluate`.
      cache_dir: see `evaluate`.

    Returns:
      Metrics in percent: those of the members, their mean, the best of them,
      and those of the majority's answers. `vote` does the same for texts.
    """
    dataset = self._eval_set(spec.task(_name(task)), data_dir, cache_dir)
    jobs = [Job(dataset, run) for run in self._members(members)]
    return ensemble.compare(Evaluator(self.predictor, jobs, listed(by))())

  def nearest_words(self, prompt: str | None = None) -> Reading:
    """Find the tokens nearest to each vector of a prompt.

    Args:
      prompt: its name.

    Returns:
      The tokens, nearest first, beside those of random vectors. It prints as a
      table.

    Raises:
      ValueError: there is no such prompt, or it has no vectors before the text.
    """
    vocabulary, config = self.predictor.vocabulary, self.backbone.config
    return interpret.reading(
      self._vectors(self._run_id(prompt), prompt or "The model"),
      quantized.embedding_table(self.backbone.params),
      min(vocabulary.size, config.vocab_size),
      lambda token: vocabulary.pieces([token])[0],
    )

  def similarity(
    self, by: str = "mean", folder: str | os.PathLike[str] | None = None
  ) -> Similarity:
    """Compare the model's prompts, as `prompt-tuning similar` does.

    Args:
      by: `mean` takes the cosine of the means over positions, `tokens` the mean
        of the cosines of all pairs of positions.
      folder: where to write `similarity.png` and `similarity.json`; None writes
        nothing.

    Returns:
      The cosines, and for every prompt the most similar other prompts.

    Raises:
      ValueError: there are fewer than two prompts, or one has no vectors before
        the text.
    """
    vectors = {
      name: self._vectors(run, name) for run, name in enumerate(self.names)
    }
    found = similarity.of(vectors, by)
    if folder is not None:
      similarity.write(found, folder)
    return found

  def train(
    self,
    task: Task | Sequence[Task],
    *,
    steps: int = 50_000,
    method: TunerFactory | None = None,
    prompt_length: int = 100,
    initializer: Initializer | str | os.PathLike[str] | None = None,
    learning_rate: float | Sequence[float] | None = None,
    seeds: int | Sequence[int] = 0,
    batch_size: int = 128,
    dropout_rate: float = 0.1,
    eval_period: int = 1_000,
    by: str | Sequence[str] | None = None,
    patience: int | None = None,
    restored_step: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    data_dir: str | None = None,
    cache_dir: str | None = None,
  ) -> Trained:
    """Tune for a task; the frozen model does not change.

    Without a method, this trains a prompt with the public code's settings. All
    combinations of tasks, learning rates and seeds train side by side on the
    one model, with the same results as alone. This is `prompt-tuning train` on
    one device. For other optimizers or several devices, use a
    `jobs.train_job.TrainJob` with `jobs.train.train`.

    Args:
      task: a task or mixture, or several.
      steps: updates.
      method: a tuning method, such as `IA3()`; None for a prompt in front of
        the text.
      prompt_length: P, the length of that prompt.
      initializer: gives that prompt its initial values; it may be the path of a
        prompt of the same length. None: the task's label words, then sampled
        vocabulary.
      learning_rate: one or several; None for that of the method's recipe.
      seeds: one or several.
      batch_size: examples in each batch of a run.
      dropout_rate: of the frozen model in training.
      eval_period: steps between evaluations on the validation split, of which
        the best step is kept; 0 evaluates only at the end.
      by: how to evaluate: `generation`, `rank` or both; the first one selects
        the best step. None for what suits the method.
      patience: evaluations without improvement after which training stops.
      restored_step: the step from which Adafactor continues; None for the
        checkpoint's.
      folder: where the run is kept, as by the command. If it holds a run, that
        run continues. None keeps nothing on disk.
      data_dir: TFDS's data directory.
      cache_dir: folder of tokenised examples; None for the default folder.

    Returns:
      The trained runs and their scores, for `with_tuned`.

    Raises:
      ValueError: the task is unknown, a setting makes no sense, or the folder
        holds another run.
      CheckpointError: the folder cannot be written to.
      DivergedError: no run has a finite loss any more.
      StoppedError: SIGTERM or a closed terminal stopped it. If it has a folder,
        it is saved there, and the same call continues it.
      KeyboardInterrupt: Ctrl-C did; the same holds.
    """
    # Imported here because training is slow to import.
    from prompt_tuning.jobs import conclusion, model_dir, train, tuning_result

    names = tuple(map(_name, listed(task)))
    if method is None:
      method = _default_prompt(names, prompt_length, initializer)
    with tempfile.TemporaryDirectory() as temporary:
      job = TrainJob(
        Experiment(
          self._config(dropout_rate),
          self._dataset(names, "train", cache_dir, batch_size),
          method,
          learning_rates=listed(learning_rate),
          seeds=listed(seeds),
        ),
        self._source,
        Duration(relative_steps=steps, restored_step=restored_step),
        EvaluationPlan(
          EvaluationSettings(self._dataset(names, "validation", cache_dir), by),
          eval_period,
          eval_steps=20 if folder else 0,
          patience=patience,
        ),
        _output(folder, temporary),
      )
      with _stoppable(folder), model_dir.held(job.output.model_dir):
        outcome = train.train(job, data_dir, self._backbone(dropout_rate))
        outcome.insist_on_an_end()
        summary = conclusion.finish(outcome) if folder else ""
        return tuning_result.of(outcome, summary)

  def compare(
    self,
    task: Task | Sequence[Task],
    methods: Mapping[str, TunerFactory],
    *,
    steps: int,
    instructed: Mapping[str, str] | None = None,
    model_rate: float | None = None,
    seeds: int | Sequence[int] = 0,
    batch_size: int = 128,
    dropout_rate: float = 0.1,
    eval_period: int = 0,
    by: str | Sequence[str] | None = None,
    split: str | None = "test",
    folder: str | os.PathLike[str] | None = None,
    data_dir: str | None = None,
    cache_dir: str | None = None,
  ) -> Comparison:
    """Train several methods in turn, and score all of them on one split.

    Each method has its own recipe. The frozen model is scored, too. This is
    `prompt-tuning compare` on one device, without random controls.

    Args:
      task: a task, or several; then a method trains on each separately.
      methods: name -> method, such as `{"LoRA": pt.LoRA(rank=4)}`.
      steps: updates of each method.
      instructed: task -> the same task with an instruction in front; the frozen
        model is also scored on these.
      model_rate: learning rate for tuning the whole model, too; None leaves
        that out.
      seeds: one or several, for each method.
      batch_size: see `train`.
      dropout_rate: see `train`.
      eval_period: steps between evaluations on the validation split, of which
        the best step is scored at the end; 0 scores the last step.
      by: how to score: `generation` (the default), `rank` or both.
      split: on which all are scored; None for the task's evaluation split.
      folder: where every training, `comparison.md` (a table) and
        `comparison.png` (score against trained parameters) are kept. If it
        holds a comparison, that one continues. None keeps nothing on disk.
      data_dir: see `train`.
      cache_dir: see `train`.

    Returns:
      Scores and costs of every method.

    Raises:
      ValueError: see `train`; also if there are no methods, one is given twice,
        there is no such split, or a name cannot be that of a folder.
      CheckpointError: see `train`.
      DivergedError: see `train`.
      StoppedError: see `train`.
      KeyboardInterrupt: see `train`.
    """
    from prompt_tuning.jobs import compare, compare_job  # slow to import

    names = tuple(map(_name, listed(task)))
    config = self._config(dropout_rate)
    dataset = self._dataset(names, "train", cache_dir, batch_size)
    validation = self._dataset(names, "validation", cache_dir)
    plan = EvaluationPlan(
      EvaluationSettings(validation, by) if eval_period else None,
      eval_period,
      eval_steps=0,
    )
    with _stoppable(folder), tempfile.TemporaryDirectory() as temporary:
      output = _output(folder, temporary)

      def job(**settings: Any) -> TrainJob:
        return TrainJob(
          Experiment(config, dataset, seeds=listed(seeds), **settings),
          self._source,
          Duration(relative_steps=steps),
          plan,
          output,
        )

      models = None
      if model_rate is not None:
        models = job(
          rules=partition.EVERYTHING,
          optimizer=recipes.RELATIVE_ADAFACTOR,
          learning_rates=(model_rate,),
        )
      return compare.compare(
        compare_job.CompareJob(
          output.model_dir,
          [job(tuner=method) for method in methods.values()],
          EvaluationSettings(self._dataset(names, split, cache_dir), by),
          models=models,
          instructed=instructed or {},
          called=tuple(methods),
          controls=False,
        ),
        data_dir,
        self._backbone(dropout_rate),
      )

  @property
  def _source(self) -> ModelSource:
    """Describe the model in memory, on one device."""
    return ModelSource(None, self.backbone.weights_dtype, MeshShape(data=1))

  def _config(self, dropout_rate: float) -> t5_config.T5Config:
    return dataclasses.replace(self.backbone.config, dropout_rate=dropout_rate)

  def _backbone(self, dropout_rate: float) -> Backbone:
    return self.backbone._replace(config=self._config(dropout_rate))

  def _dataset(
    self,
    names: str | Sequence[str],
    split: str | None,
    cache_dir: str | None,
    batch_size: int | None = None,
  ) -> Dataset:
    """Describe how tasks are read: with the model's vocabulary and limits."""
    predictor = self.predictor
    return Dataset(
      names,
      {"inputs": predictor.input_length, "targets": None},
      predictor.batching.batch_size if batch_size is None else batch_size,
      split=split,
      vocabulary_file=predictor.vocabulary.path,
      cache_dir=cache_dir,
    )

  def _eval_set(
    self,
    task: spec.TaskSpec,
    data_dir: str | None,
    cache_dir: str | None,
    context: InContext | None = None,
  ) -> EvalSet:
    """Read what a task is evaluated on."""
    data = self._dataset(task.name, None, cache_dir)
    feed.open_vocabulary(data, self.predictor.config.vocab_size)
    (dataset,) = feed.eval_sets(data, task.name, data_dir, context=context)
    return dataset

  def _vectors(self, run: int, name: str) -> np.ndarray:
    """Take the vectors [P, H] of a prompt before the text."""
    vectors = loading.vectors(self.predictor.runs, run)
    if "encoder" not in vectors:
      raise ValueError(
        f"{name} has no vectors before the text; it has "
        f"{', '.join(vectors) or 'no virtual tokens'}."
      )
    return vectors["encoder"]

  def _members(self, names: Sequence[str] | None) -> list[int]:
    """Number the prompts that vote, none of them twice."""
    names = self.names if names is None else names
    runs = [self._run_id(name) for name in names]
    if len(set(runs)) < len(runs):
      raise ValueError(
        "A vote names a prompt twice; expected different ones: "
        f"{', '.join(names)}."
      )
    return runs

  def _as_runs(self, name: str, tuned: TunedLike) -> Runs:
    if tuned is None:
      return Runs()
    vocabulary = self.predictor.vocabulary
    if isinstance(tuned, Trained):
      run = tuned.select(name)
      origin = tuned.origins[run]
      found = loading.Tuned(
        tuned.runs[run],
        ("",),
        origin.backbone,
        vocabulary=origin.vocabulary,
      )
      return loading.insist(found, self.backbone, repr(name), vocabulary).runs
    if isinstance(tuned, Runs):
      if len(tuned) != 1:
        raise ValueError(f"{name!r} names {len(tuned)} runs; expected one.")
      return tuned
    if isinstance(tuned, np.ndarray):
      return from_vectors(tuned)
    if not isinstance(tuned, str | os.PathLike):
      raise ValueError(
        f"{name!r} is a {type(tuned).__name__}; expected a path, an array "
        "[P, H], one run, a training, or None for the model itself."
      )
    loaded = loading.load_one(tuned, self.backbone.config.shape)
    return loading.insist(
      loaded, self.backbone, os.fspath(tuned), vocabulary
    ).runs

  def _run_ids(self, texts: Sequence[str], prompt: Prompts) -> list[int]:
    if isinstance(texts, str):
      raise ValueError(f"Expected a list of texts; got the text {texts!r}.")
    if prompt is None or isinstance(prompt, str):
      return [self._run_id(prompt)] * len(texts)
    if not isinstance(prompt, Iterable):
      raise ValueError(
        f"Expected the name of a prompt, or a list of names; got {prompt!r}."
      )
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


def _default_prompt(
  tasks: Sequence[str],
  length: int,
  initializer: Initializer | str | os.PathLike[str] | None,
) -> TunerFactory:
  """Choose a prompt in front of the text, as the public demos have it."""
  if initializer is None:
    labelled = all(map(task_words, tasks))
    initializer = ClassLabels() if labelled else SampledVocabulary()
  elif isinstance(initializer, str | os.PathLike):
    initializer = FromFile(os.fspath(initializer))
  return Prompt(encoder_length=length, encoder_init=initializer)


@contextlib.contextmanager
def _stoppable(folder: str | os.PathLike[str] | None) -> Iterator[None]:
  """Raise the error that Python's users expect after a signal.

  Args:
    folder: the user's, where it was saved; None where nothing was kept.

  Raises:
    KeyboardInterrupt: Ctrl-C stopped it.
    StoppedError: another signal did; it says how to go on.
  """
  try:
    yield
  except StoppedError as stop:
    if stop.number == signal.SIGINT:
      raise KeyboardInterrupt from stop
    raise StoppedError(
      stop.number,
      stop.ending,
      f"It is saved in {folder}; the same call continues it."
      if folder
      else (
        "Nothing was saved. If you give a `folder`, the same call continues "
        "the training."
      ),
    ) from stop


def _output(folder: str | os.PathLike[str] | None, temporary: str) -> Output:
  """Keep a training in the user's folder; without one, keep little."""
  return Output(
    os.fspath(folder or temporary),
    checkpoint_period=1_000 if folder else 0,
    tensorboard=folder is not None,
  )


def _inputs_of(examples: Sequence[Mapping[str, Any]]) -> list[str]:
  for row, example in enumerate(examples):
    for field in (spec.INPUTS, spec.TARGETS):
      if field not in example:
        raise ValueError(
          f"Example {row} has no field {field!r}; it has: {', '.join(example)}."
        )
  return [str(example[spec.INPUTS]) for example in examples]


def _name(task: Task) -> str:
  return task if isinstance(task, str) else task.name
