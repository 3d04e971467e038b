"""The names that gin files can use; they do not follow the code's layout.

Library code never imports gin. This table registers a class once. `@name` and
`name.parameter` in gin files refer to the table, so code can move.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gin
import jax.numpy as jnp

from prompt_tuning.checkpoints import restore, sizes
from prompt_tuning.core import axes, partition
from prompt_tuning.data import (
  corpus,
  custom,
  facts,
  in_context,
  mixtures,
  ppt,
  several_templates,
  templated,
  vocabulary,
)
from prompt_tuning.data.catalog import skills
from prompt_tuning.infer import calibrated
from prompt_tuning.jobs import (
  compare_job,
  eval_job,
  infer_job,
  pretrain_job,
  recipes,
  settings,
  sweep_job,
  train_job,
)
from prompt_tuning.launch import gin_config
from prompt_tuning.models import scorers
from prompt_tuning.models.t5 import config, decoding
from prompt_tuning.train import (
  classes,
  masks,
  objectives,
  optimizers,
  perceptron,
  schedules,
)
from prompt_tuning.train import mixture as mixture_objective
from prompt_tuning.tuners import copying, discovery, initializers
from prompt_tuning.tuners import settings as tuner_settings
from prompt_tuning.tuners.method import Method


def t5(
  family: str,
  size: str,
  dtype: str = "float32",
  dropout_rate: float = 0.0,
  float32_attention_logits: bool = False,
  scan_layers: bool = False,
  remat_policy: str = "minimal",
) -> config.T5Config:
  """Look a published T5 up.

  Args:
    family: `t5_1_1`, `t5_1_0` or `mt5`.
    size: such as `base`.
    dtype: of activations.
    dropout_rate: while training.
    float32_attention_logits: compute attention logits in float32.
    scan_layers: compile one layer and scan over all.
    remat_policy: how much the backward pass computes again: `none`, `minimal`
      or `full`.

  Returns:
    Its configuration.
  """
  return config.get(
    f"{family}_{size}",
    dtype=_dtype(dtype),
    dropout_rate=dropout_rate,
    float32_attention_logits=float32_attention_logits,
    scan_layers=scan_layers,
    remat_policy=remat_policy,
  )


def t5_of_checkpoint(
  path: str | None,
  dtype: str = "float32",
  dropout_rate: float = 0.0,
  scan_layers: bool = False,
  remat_policy: str = "minimal",
) -> config.T5Config:
  """Read the shape of a T5 from its checkpoint; the rest is as for `t5`."""
  if path is None:
    raise ValueError(
      "The sizes of the model are read from its checkpoint, but none is "
      "given: set INITIAL_CHECKPOINT_PATH, or give the gin file of a model."
    )
  return dataclasses.replace(
    sizes.infer_config(restore.open_checkpoint(path)),
    dtype=_dtype(dtype),
    dropout_rate=dropout_rate,
    scan_layers=scan_layers,
    remat_policy=remat_policy,
  )


@functools.wraps(custom.declare)
def custom_task(*args: Any, **kwargs: Any) -> str:
  """Declare a task of one's own files and return its name."""
  return custom.declare(*args, **kwargs).name


@functools.wraps(templated.declare)
def templated_task(*args: Any, **kwargs: Any) -> str:
  """Declare a task of a template and label words and return its name."""
  return templated.declare(*args, **kwargs).name


@functools.wraps(ppt.pretraining)
def ppt_pretraining(*args: Any, **kwargs: Any) -> str:
  """Declare a task of plain text to pre-train a prompt on; return its name."""
  return ppt.pretraining(*args, **kwargs).name


@functools.wraps(ppt.in_form)
def ppt_task(*args: Any, **kwargs: Any) -> str:
  """Declare a task in a form of pre-training and return its name."""
  return ppt.in_form(*args, **kwargs).name


@functools.wraps(facts.declare)
def facts_task(*args: Any, **kwargs: Any) -> str:
  """Declare a task of the facts of one relation and return its name."""
  return facts.declare(*args, **kwargs).name


@functools.wraps(several_templates.declare)
def templated_tasks(*args: Any, **kwargs: Any) -> tuple[str, ...]:
  """Declare a task for each of several templates and return their names."""
  return several_templates.declare(*args, **kwargs)


def shown_task(
  task: str, vocabulary_file: str | None = None
) -> tuple[str, str | None]:
  """Name the task that `data show` looks at, and its vocabulary."""
  return task, vocabulary_file


@functools.wraps(mixtures.declare)
def mixture(*args: Any, **kwargs: Any) -> str:
  """Declare a mixture of tasks and return its name."""
  return mixtures.declare(*args, **kwargs).name


def count_tokens(text: str, vocabulary_file: str | None = None) -> int:
  """Count a text's tokens, without EOS.

  Args:
    text: any.
    vocabulary_file: None for the usual one.

  Raises:
    ValueError: it is not a text, or an empty one.
  """
  tuner_settings.text("TASK_STRING", text)
  return len(vocabulary.load(vocabulary_file).encode(text))


def _dtype(name: str) -> Any:
  if name not in config.DTYPES:
    raise ValueError(
      f"ACTIVATION_DTYPE {name!r}: expected 'float32' or 'bfloat16'."
    )
  return jnp.dtype(name)


# Full name in gin -> what it builds.
KNOWN: Mapping[str, Callable[..., Any]] = {
  "compare": compare_job.CompareJob,
  "eval": eval_job.EvalJob,
  "infer": infer_job.InferJob,
  "pretrain": pretrain_job.PretrainJob,
  "sweep": sweep_job.Settings,
  "train": train_job.from_settings,
  "corpora.Denoising": corpus.Denoising,
  "corpora.Skills": corpus.Skills,
  "corpora.Text": corpus.Text,
  "data.Dataset": settings.Dataset,
  "data.count_tokens": count_tokens,
  "data.custom_task": custom_task,
  "data.facts_task": facts_task,
  "data.mixture": mixture,
  "data.ppt_pretraining": ppt_pretraining,
  "data.ppt_task": ppt_task,
  "data.shown_task": shown_task,
  "data.templated_task": templated_task,
  "data.templated_tasks": templated_tasks,
  "decoding.BeamSearch": decoding.BeamSearch,
  "decoding.Greedy": decoding.Greedy,
  "decoding.Sampling": decoding.Sampling,
  "pretraining.Stage": pretrain_job.Stage,
  "evaluation.Calibration": calibrated.Calibration,
  "evaluation.Evaluation": settings.EvaluationSettings,
  "evaluation.InContext": in_context.InContext,
  "meshes.Mesh": settings.MeshShape,
  "models.T5Config": config.T5Config,
  "models.t5": t5,
  "models.t5_of_checkpoint": t5_of_checkpoint,
  "objectives.Classes": classes.Classes,
  "objectives.CrossEntropy": objectives.CrossEntropy,
  "objectives.Masks": masks.Masks,
  "objectives.Mixture": mixture_objective.Mixture,
  "objectives.Perceptron": perceptron.Perceptron,
  "optimizers.Adafactor": optimizers.Adafactor,
  "optimizers.AtRate": optimizers.AtRate,
  "optimizers.ByPath": optimizers.ByPath,
  "optimizers.ClipByGlobalNorm": optimizers.ClipByGlobalNorm,
  "optimizers.Optax": optimizers.Optax,
  "schedules.Factors": schedules.FactorSchedule,
  "scorers.FirstPiece": scorers.FirstPiece,
  "scorers.MeanPiece": scorers.MeanPiece,
  "scorers.OutputRows": scorers.OutputRows,
  "scorers.Sentinels": scorers.Sentinels,
  "scorers.WholeWords": scorers.WholeWords,
  "training.TrainingStage": train_job.TrainingStage,
  "tuners.ClassLabels": initializers.ClassLabels,
  "tuners.FromFile": copying.FromFile,
  "tuners.SampledVocabulary": initializers.SampledVocabulary,
  "tuners.TemplateWords": initializers.TemplateWords,
  "tuners.Text": initializers.Text,
  "tuners.Uniform": initializers.Uniform,
}

# Values too long to write out; `%name` in gin files.
CONSTANTS: Mapping[str, Any] = {
  "axes.FULLY_SHARDED_RULES": axes.FULLY_SHARDED_RULES,
  "axes.STANDARD_RULES": axes.STANDARD_RULES,
  "labels.RECORD": initializers.RECORD_LABELS,
  "labels.WSC": initializers.WSC_LABELS,
  "method.RECIPE": None,  # what a method's recipe says, or a user
  "optimizers.RELATIVE_ADAFACTOR": recipes.RELATIVE_ADAFACTOR,
  "partition.EVERYTHING": partition.EVERYTHING,
  "partition.TUNER_ONLY": partition.TUNER_ONLY,
  "tasks.SKILLS": skills.NAMES,
  "tasks.INSTRUCTED_SKILLS": {n: skills.instructed(n) for n in skills.NAMES},
  "tasks.HELD_OUT_SKILLS": skills.HELD_OUT_NAMES,
  "tasks.INSTRUCTED_HELD_OUT_SKILLS": {
    n: skills.instructed(n) for n in skills.HELD_OUT_NAMES
  },
}


# Methods that gin knows, by their full names.
_METHODS: dict[str, type[Method]] = {}


def register_methods(
  modules: Sequence[str] = (),
) -> dict[str, Callable[..., Any]]:
  """Tell gin about tuning methods, as `tuners.<class>`.

  Args:
    modules: more modules that define methods, see `discovery.methods`.

  Returns:
    Full name in gin -> class, of all of them.

  Raises:
    ValueError: a module is wrong, or a name is taken.
  """
  methods = discovery.methods(modules)
  known: dict[str, Callable[..., Any]] = {}
  for name, kind in methods.items():
    full_name = f"tuners.{name}"
    if full_name in KNOWN:
      raise ValueError(
        f"The tuning method {name} of {kind.__module__} has the name of an "
        "initialiser; expected another name. Rename the method."
      )
    _register_method(full_name, kind)
    known[full_name] = kind
  return known


def _register_method(full_name: str, kind: type[Method]) -> None:
  """Register a class once; gin keeps its entries for the whole process."""
  other = _METHODS.get(full_name)
  if other is None:
    _METHODS[full_name] = kind
    _register(full_name, kind, gin_config.FLAX_FIELDS)
  elif other is not kind:
    raise ValueError(
      f"In this process, {full_name} is the class of {other.__module__}. To "
      f"use that of {kind.__module__}, start another process."
    )


def _register(
  full_name: str,
  build: Callable[..., Any],
  denylist: Sequence[str] | None = None,
) -> None:
  module, _, name = full_name.rpartition(".")
  gin.external_configurable(
    build, name=name, module=module or None, denylist=denylist
  )


@functools.cache
def register() -> None:
  """Register everything above with gin, once per process."""
  for full_name, build in KNOWN.items():
    _register(full_name, build)
  for name, value in CONSTANTS.items():
    gin.constant(name, value)
