"""Tasks for recycling prompts: SST-2, IMDB, QQP, ReCoRD, without task names.

Each data set holds out rows of its training part for model selection. `_test`
generates the answers of the published evaluation set; `_rc` ranks them;
`_rc_normed` ranks them by their mean log-likelihood. Words in a name are the
label words ("verbalizers").

Source: Lester et al. 2022, Reducing Retraining by Recycling Parameter-Efficient
Prompts; names of google-research/prompt-tuning. Its second set of metrics of
one task (`normed_...`) has no counterpart. A list of its names writes `a_b` for
the words of QQP's own labels; both names exist here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.data import postprocessors, spec
from prompt_tuning.data.catalog import glue, ranked
from prompt_tuning.data.metrics import classification, grouped

MODULE = "prompt_tuning.data.tasks.recycling"
_TEST = {"validation": "validation"}
_BINARY = ("0", "1")


def _held_out(count: int) -> dict[str, str]:
  """Divide the training split."""
  return {"train": f"train[:-{count}]", "validation": f"train[-{count}:]"}


def _add_family(
  stem: str,
  parts: Mapping[str, Mapping[str, Any]],
  **common: Any,
) -> None:
  """Add the tasks of a stem, a mixture of all, and a mixture of the tests.

  Args:
    stem: the beginning of all names.
    parts: rest of a name -> fields of its own spec.
    **common: fields that all specs share.
  """
  names = [f"{stem}_{part}" for part in parts]
  for name, own in zip(names, parts.values(), strict=True):
    spec.add(
      spec.TaskSpec(
        name=name, benchmark="recycling", module=MODULE, **common, **own
      )
    )
  tests = [name for name in names if not name.endswith(("_train", "_training"))]
  for ending, members in (("", names), ("_eval", tests)):
    rates = dict.fromkeys(members, 1.0)
    spec.add(spec.MixtureSpec(f"{stem}{ending}", rates, MODULE))


def _classes(words: Sequence[str], metrics: Any) -> dict[str, Any]:
  """Describe a generated label."""
  return {
    "label_words": tuple(words),
    "postprocess": postprocessors.LabelId(tuple(words)),
    "metrics": ranked.with_statistics(words, metrics),
  }


def _ranks(
  words: Sequence[str], by: str, splits: Any = _TEST
) -> dict[str, Any]:
  """Describe a ranked label."""
  return {
    **_classes(words, ranked.metrics(words)),
    "splits": splits,
    "ranked": by,
  }


def _add_sst2() -> None:
  words = glue.LABEL_WORDS["sst2"]
  generated = _classes(words, glue.METRICS["sst2"])
  _add_family(
    "pr:glue_sst2_v200",
    {
      "train": {**generated, "splits": _held_out(1_000)},
      "test": {**generated, "splits": _TEST},
      "test_rc": _ranks(words, "sum"),
    },
    dataset="sst2",
    source="glue/sst2:2.0.0",
    eval_features=("idx",),
  )


def _add_imdb(words: Sequence[str]) -> None:
  generated = _classes(words, (classification.accuracy,))
  test = {"validation": "test"}
  _add_family(
    f"pr:imdb_v100_{'_'.join(words)}_verbalizers",
    {
      "train": {**generated, "splits": _held_out(1_000)},
      "test": {**generated, "splits": test},
      "test_rc": _ranks(words, "sum", test),
    },
    dataset="imdb",
    source="imdb_reviews/plain_text:1.0.0",
  )


def _add_qqp(words: Sequence[str]) -> None:
  generated = _classes(words, glue.METRICS["qqp"])
  spelt = "_".join(word.replace(" ", "_spc_") for word in words)
  _add_family(
    f"pr:glue_qqp_v200_{spelt}_verbalizers",
    {
      "rc": _ranks(words, "sum"),
      "rc_normed": _ranks(words, "mean"),
      "training": {**generated, "splits": _held_out(10_000)},
      "test": {**generated, "splits": _TEST},
    },
    dataset="qqp",
    source="glue/qqp:2.0.0",
    eval_features=("idx",),
  )


def _add_record() -> None:
  index = ("idx/passage", "idx/query", "answers")
  generated = {"metrics": (grouped.record,), "eval_features": index}
  _add_family(
    "pr:super_glue_record_v102",
    {
      "training": {**generated, "splits": _held_out(10_000)},
      "test": {**generated, "splits": _TEST},
      "rc": {
        "metrics": (grouped.any_answer,),
        "eval_features": (*index, "entities"),
        "candidates": "entities",
        "splits": _TEST,
        "ranked": "sum",
      },
    },
    dataset="record",
    source="super_glue/record:1.0.2",
    postprocess=postprocessors.record,
  )


_SENTIMENTS: tuple[tuple[str, ...], ...] = (_BINARY, ("negative", "positive"))
_DUPLICATES: tuple[tuple[str, ...], ...] = (
  glue.LABEL_WORDS["qqp"],
  ("a", "b"),
  _BINARY,
  ("unique", "duplicate"),
  ("not duplicate", "duplicate"),
)

_add_sst2()
for _words in _SENTIMENTS:
  _add_imdb(_words)
for _words in _DUPLICATES:
  _add_qqp(_words)
_add_record()
