"""The source tasks of SPoT: GLUE, MRQA, natural language inference, summaries.

Source: Vu et al. 2022; names and text forms of google-research/prompt-tuning,
which keep each task's name in front of the text.

Deviations: answers to NLI are class ids with label statistics; SNLI's rows
without a label are dropped, but the original trains on `<unk>`; ROUGE is the
mean over texts. TFDS no longer writes CNN/Daily Mail 3.2.0 and Multi-News
1.0.0; it can read an existing folder.
"""

from typing import Any

from prompt_tuning.data import postprocessors, spec
from prompt_tuning.data.catalog import glue, qa, ranked, summarization
from prompt_tuning.data.metrics import classification, rouge
from prompt_tuning.data.metrics import qa as answers

MODULE = "prompt_tuning.data.tasks.spot"
# Data set -> TFDS name and version; the premise's feature; label words.
NLI = {
  **{
    f"anli_{r}": (f"anli/{r}:0.1.0", "context", glue.NLI)
    for r in ("r1", "r2", "r3")
  },
  "doc_nli": ("doc_nli:1.0.0", "premise", ("not_entailment", "entailment")),
  "snli": ("snli:1.1.0", "premise", glue.NLI),
}
# Data set -> TFDS name and version, features with the text and its summary.
SUMMARIES = {
  "aeslc": ("aeslc:1.0.0", "email_body", "subject_line"),
  "billsum": ("billsum:3.0.0", "text", "summary"),
  "gigaword": ("gigaword:1.2.0", "document", "summary"),
  "cnn_dailymail": ("cnn_dailymail:3.2.0", "article", "highlights"),
  "multi_news": ("multi_news:1.0.0", "document", "summary"),
  "samsum": ("samsum:1.0.0", "dialogue", "summary"),
  "newsroom": ("newsroom:1.0.0", "text", "summary"),
}
MRQA = ("squad", *qa.IN_DOMAIN)
_GLUE = (*("cola", "sst2", "mrpc", "qqp", "stsb", "qnli", "rte", "wnli"),)
_MNLI = {
  "mnli_train": {"train": "train"},
  "mnli_validation_matched": {"validation": "validation_matched"},
  "mnli_validation_mismatched": {"validation": "validation_mismatched"},
}
_EVERY = summarization.SPLITS
# Two have no development set.
_SPLITS = {"billsum": {"train": "train", "test": "test"}}


def _add(name: str, source: str, dataset: str, **fields: Any) -> None:
  version = source.partition(":")[2].replace(".", "")
  spec.add(
    spec.TaskSpec(
      name=f"spot_{name}_v{version}",
      benchmark="spot",
      dataset=dataset,
      module=MODULE,
      source=source,
      **fields,
    )
  )


def _add_glue(dataset: str, name: str, splits: dict[str, str]) -> None:
  words = glue.LABEL_WORDS[dataset]
  _add(
    f"glue_{name}",
    f"glue/{dataset}:2.0.0",
    f"glue_{name}",
    splits=splits,
    label_words=words,
    postprocess=(
      postprocessors.LabelId(words) if words else postprocessors.to_float
    ),
    metrics=glue.metrics_of(dataset),
    eval_features=("idx",),
    content={"form": "glue", "of": dataset},
  )


for _name in _GLUE:
  _add_glue(_name, _name, _EVERY)
for _name, _splits in _MNLI.items():
  _add_glue("mnli", _name, _splits)
for _name in MRQA:
  _add(
    f"mrqa_{_name}",
    f"mrqa/{_name}:1.0.0",
    f"mrqa_{_name}",
    splits={"train": "train", "validation": "validation"},
    postprocess=postprocessors.qa,
    metrics=(answers.squad,),
    eval_features=("id", "answers"),
    content={"form": "mrqa", "of": _name},
  )
for _name, (_source, _premise, _words) in NLI.items():
  _add(
    _name,
    _source,
    _name,
    splits=_EVERY,
    label_words=_words,
    postprocess=postprocessors.LabelId(_words),
    metrics=ranked.with_statistics(_words, (classification.accuracy,)),
    content={"form": "nli", "premise": _premise},
  )
for _name, (_source, _text, _summary) in SUMMARIES.items():
  _add(
    _name,
    _source,
    _name,
    splits=_SPLITS.get(_name, _EVERY),
    metrics=(rouge.rouge,),
    content={"form": "summary", "text": _text, "summary": _summary},
  )
spec.add(
  spec.MixtureSpec(
    "spot_glue_mnli_and_dev_v200",
    {f"spot_glue_{name}_v200": 1.0 for name in _MNLI},
    MODULE,
  )
)
