"""GLUE, in both TFDS versions of the original's names, and its mixtures.

Source: the paper's appendix; label words in the order of the TFDS builders
(asserted by a test); names of google-research/prompt-tuning and the T5 library.
"""

import functools

from prompt_tuning.data import postprocessors, spec
from prompt_tuning.data.catalog.variants import variants
from prompt_tuning.data.metrics import classification, correlation

MODULE = "prompt_tuning.data.tasks.glue"
# Version in the task's name -> TFDS version.
VERSIONS = {"v002": "1.0.0", "v200": "2.0.0"}
ENTAILMENT = ("entailment", "not_entailment")
NLI = ("entailment", "neutral", "contradiction")

LABEL_WORDS = {
  "cola": ("unacceptable", "acceptable"),
  "sst2": ("negative", "positive"),
  "mrpc": ("not_equivalent", "equivalent"),
  "qqp": ("not_duplicate", "duplicate"),
  "stsb": (),
  "mnli": NLI,
  "mnli_mismatched": NLI,
  "mnli_matched": NLI,
  "qnli": ENTAILMENT,
  "rte": ENTAILMENT,
  "wnli": ("not_entailment", "entailment"),
  "ax": NLI,
}
METRICS: dict[str, tuple[spec.Metric, ...]] = {
  **dict.fromkeys(LABEL_WORDS, (classification.accuracy,)),
  "cola": (classification.matthews,),
  "mrpc": (classification.f1, classification.accuracy),
  "qqp": (classification.f1, classification.accuracy),
  "stsb": (correlation.pearson, correlation.spearman),
  "ax": (),  # the diagnostic's labels are not public
}
_EVALUATION_ONLY = {"validation": "validation", "test": "test"}
_MNLI_SPLITS = (
  "train",
  "validation_matched",
  "validation_mismatched",
  "test_matched",
  "test_mismatched",
)
SPLITS = {
  **{d: {"train": "train", **_EVALUATION_ONLY} for d in LABEL_WORDS},
  "mnli": {split: split for split in _MNLI_SPLITS},
  "mnli_matched": _EVALUATION_ONLY,
  "mnli_mismatched": _EVALUATION_ONLY,
  "ax": {"test": "test"},
}

# Training rows, which are the rates of the T5 library's mixture without WNLI.
_PROPORTIONAL = {
  "cola": 8_551.0,
  "sst2": 67_349.0,
  "mrpc": 3_668.0,
  "qqp": 363_849.0,
  "stsb": 5_749.0,
  "mnli": 392_702.0,
  "qnli": 104_743.0,
  "rte": 2_490.0,
  "mnli_mismatched": 0.0,
  "mnli_matched": 0.0,
  "ax": 0.0,
}


def metrics_of(dataset: str) -> tuple[spec.Metric, ...]:
  """Return a dataset's metrics, with label statistics if it has labels."""
  words = LABEL_WORDS[dataset]
  if not words or not METRICS[dataset]:
    return METRICS[dataset]
  statistics = functools.partial(classification.label_statistics, words)
  return (*METRICS[dataset], statistics)


def _add(dataset: str, version: str, prefix: str, suffix: str) -> None:
  words = LABEL_WORDS[dataset]
  spec.add(
    spec.TaskSpec(
      name=f"{prefix}glue_{dataset}_{version}{suffix}",
      benchmark="glue",
      dataset=dataset,
      module=MODULE,
      source=f"glue/{dataset}:{VERSIONS[version]}",
      splits=SPLITS[dataset],
      label_words=words,
      postprocess=(
        postprocessors.LabelId(words) if words else postprocessors.to_float
      ),
      metrics=metrics_of(dataset),
      eval_features=("idx",),
      log_examples=bool(suffix),
    )
  )


def _add_mixtures(version: str, prefix: str, suffix: str) -> None:
  """Add MNLI with both its development sets, and all of GLUE."""
  # The parts have the mixture's own prefix; the original mixes tasked ones
  # under its `taskless_` name.
  names = {d: f"{prefix}glue_{d}_{version}{suffix}" for d in LABEL_WORDS}
  mnli = ("mnli", "mnli_mismatched", "mnli_matched")
  spec.add(
    spec.MixtureSpec(
      f"{prefix}glue_mnli_and_dev_{version}{suffix}",
      {names[d]: 1.0 for d in mnli},
      MODULE,
    )
  )
  if not prefix and not suffix:
    spec.add(
      spec.MixtureSpec(
        f"glue_{version}_proportional",
        {names[d]: rate for d, rate in _PROPORTIONAL.items()},
        MODULE,
      )
    )


for _version in VERSIONS:
  for _prefix, _suffix in variants():
    for _dataset in LABEL_WORDS:
      _add(_dataset, _version, _prefix, _suffix)
    _add_mixtures(_version, _prefix, _suffix)
