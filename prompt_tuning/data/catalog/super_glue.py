"""SuperGLUE, its diagnostics, WSC as generation, and DPR.

Source: the paper's appendix; label words in the order of the TFDS builders
(asserted by a test); names of google-research/prompt-tuning and the T5 library.
"""

import functools

from prompt_tuning.data import postprocessors, spec
from prompt_tuning.data.catalog.variants import TASK_INDEX, variants
from prompt_tuning.data.metrics import classification, grouped

MODULE = "prompt_tuning.data.tasks.super_glue"
ALL_SPLITS = {s: s for s in ("train", "validation", "test")}
BOOLEAN = ("False", "True")
ENTAILMENT = ("entailment", "not_entailment")

LABEL_WORDS = {
  "boolq": BOOLEAN,
  "cb": ("entailment", "contradiction", "neutral"),
  "copa": ("choice1", "choice2"),
  "multirc": BOOLEAN,
  "rte": ENTAILMENT,
  "wic": BOOLEAN,
  "axb": ENTAILMENT,
  "axg": ENTAILMENT,
}
METRICS: dict[str, tuple[spec.Metric, ...]] = {
  "boolq": (classification.accuracy,),
  "cb": (classification.mean_f1(3), classification.accuracy),
  "copa": (classification.accuracy,),
  "multirc": (grouped.multirc_f1, grouped.multirc_exact_match),
  "rte": (classification.accuracy,),
  "wic": (classification.accuracy,),
  # The diagnostics' labels are not public, so that they only have submission
  # files.
  "axb": (),
  "axg": (),
}
_MULTIRC_INDEX = ("idx/paragraph", "idx/question", "idx/answer")

# Training rows (positive referents only, one row per ReCoRD answer): the rates
# of the T5 library's mixture. Tasks of rate 0 are evaluated only.
_PROPORTIONAL = {
  "dpr_v001_simple": 1_322.0,
  "super_glue_wsc_v102_simple_train": 259.0,
  "super_glue_wsc_v102_simple_eval": 0.0,
  "super_glue_boolq_v102": 9_427.0,
  "super_glue_cb_v102": 250.0,
  "super_glue_copa_v102": 400.0,
  "super_glue_multirc_v102": 27_243.0,
  "super_glue_record_v102": 138_854.0,
  "super_glue_rte_v102": 2_490.0,
  "super_glue_wic_v102": 5_428.0,
  "super_glue_axb_v102": 0.0,
  "super_glue_axg_v102": 0.0,
}


def _add_classification(dataset: str, prefix: str, suffix: str) -> None:
  words = LABEL_WORDS[dataset]
  is_multirc = dataset == "multirc"
  statistics = functools.partial(classification.label_statistics, words)
  metrics = METRICS[dataset]
  spec.add(
    spec.TaskSpec(
      name=f"{prefix}super_glue_{dataset}_v102{suffix}",
      benchmark="super_glue",
      dataset=dataset,
      module=MODULE,
      source=f"super_glue/{dataset}:1.0.2",
      splits=ALL_SPLITS if metrics else {"test": "test"},
      label_words=words,
      postprocess=(
        postprocessors.multirc if is_multirc else postprocessors.LabelId(words)
      ),
      metrics=(*metrics, statistics) if metrics else (),
      eval_features=_MULTIRC_INDEX if is_multirc else ("idx",),
      log_examples=bool(suffix),
    )
  )


def _add_record(prefix: str, suffix: str) -> None:
  spec.add(
    spec.TaskSpec(
      name=f"{prefix}super_glue_record_v102{suffix}",
      benchmark="super_glue",
      dataset="record",
      module=MODULE,
      source="super_glue/record:1.0.2",
      splits=ALL_SPLITS,
      postprocess=postprocessors.record,
      metrics=(grouped.record,),
      eval_features=("idx/passage", "idx/query", "answers"),
      log_examples=bool(suffix),
    )
  )


def _add_wsc(prefix: str, suffix: str) -> None:
  splits = {
    "train": {"train": "train"},
    "eval": {"validation": "validation", "test": "test"},
  }
  names = []
  for part, available in splits.items():
    names.append(f"{prefix}super_glue_wsc_v102_simple_{part}{suffix}")
    spec.add(
      spec.TaskSpec(
        name=names[-1],
        benchmark="super_glue",
        dataset="wsc",
        module=MODULE,
        source="super_glue/wsc.fixed:1.0.2",
        splits=available,
        postprocess=postprocessors.wsc,
        metrics=(classification.accuracy,) if part == "eval" else (),
        eval_features=("idx", "label"),
        log_examples=bool(suffix),
      )
    )
  mixture = f"{prefix}super_glue_wsc_and_dev_v102_simple{suffix}"
  spec.add(spec.MixtureSpec(mixture, dict.fromkeys(names, 1.0), MODULE))


def _add_dpr(prefix: str, suffix: str) -> None:
  spec.add(
    spec.TaskSpec(
      name=f"{prefix}dpr_v001_simple{suffix}",
      benchmark="super_glue",
      dataset="dpr",
      module=MODULE,
      source="definite_pronoun_resolution:1.1.0",
      splits={"train": "train", "test": "test"},
      metrics=(classification.accuracy,),
      log_examples=bool(suffix),
    )
  )


def _add_task_index_mixtures() -> None:
  """Add mixtures for training a prompt of many tasks, with and without DPR."""
  rates = {
    # Texts are logged in tasks that are evaluated.
    f"{TASK_INDEX}{name}{'' if name.endswith('_train') else '_examples'}": rate
    for name, rate in _PROPORTIONAL.items()
    if not name.endswith(("axb_v102", "axg_v102"))
  }
  for dpr in ("with_dpr_", ""):
    spec.add(
      spec.MixtureSpec(
        f"{TASK_INDEX}super_glue_{dpr}v102_examples_proportional",
        {n: rate for n, rate in rates.items() if dpr or "dpr_v001" not in n},
        MODULE,
      )
    )


for _prefix, _suffix in variants():
  for _dataset in LABEL_WORDS:
    _add_classification(_dataset, _prefix, _suffix)
  _add_record(_prefix, _suffix)
  _add_wsc(_prefix, _suffix)
  _add_dpr(_prefix, _suffix)

spec.add(
  spec.MixtureSpec("super_glue_v102_proportional", _PROPORTIONAL, MODULE)
)
_add_task_index_mixtures()
