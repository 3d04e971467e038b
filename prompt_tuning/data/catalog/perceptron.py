"""GLUE and SuperGLUE for losses over whole answers, and for generation.

`_perceptron_` tasks are ranked by the mean log-likelihood of a label word's
tokens, as those losses do (`gin/objectives/perceptron.gin`); `_generation_`
tasks are generated, `_rank_classification_` ones ranked by the sum. Each holds
out rows of the training split for model selection, and has no task name in its
text.

Source: names and held-out rows of google-research/prompt-tuning,
`extended/perceptron`. There, a `_perceptron_` row contains all candidate
answers; here, the candidates are the task's label words.
"""

from typing import Any

from prompt_tuning.data import postprocessors, spec
from prompt_tuning.data.catalog import glue, ranked, super_glue

MODULE = "prompt_tuning.data.tasks.perceptron"
# Benchmark -> data set -> rows that are held out of its training split.
HELD_OUT = {
  "glue": {
    **{"cola": 500, "sst2": 2000, "mrpc": 200, "qqp": 5000},
    **{"qnli": 3000, "rte": 200},
  },
  "super_glue": {"boolq": 400, "cb": 50, "copa": 50, "rte": 200, "wic": 400},
}
_OF = {"glue": (glue, "2.0.0"), "super_glue": (super_glue, "1.0.2")}
_TEST = {"validation": "validation"}


def _add(benchmark: str, dataset: str, count: int) -> None:
  catalogue, version = _OF[benchmark]
  words = catalogue.LABEL_WORDS[dataset]
  stem = f"{benchmark}_{dataset}_v{version.replace('.', '')}"
  own = {"metrics": ranked.with_statistics(words, catalogue.METRICS[dataset])}
  by_rank = {"metrics": ranked.with_statistics(words, ranked.metrics(words))}
  held_out = {"validation": f"train[-{count}:]"}
  both = {"train": f"train[:-{count}]", **held_out}
  parts: dict[str, dict[str, Any]] = {
    "perceptron_train": {"splits": both, "ranked": "mean", **own},
    "perceptron_test": {"splits": _TEST, "ranked": "mean", **own},
    "rank_classification_validation": {
      "splits": held_out,
      "ranked": "sum",
      **by_rank,
    },
    "rank_classification_test": {"splits": _TEST, "ranked": "sum", **by_rank},
    "generation_train": {"splits": both, **own},
    "generation_test": {"splits": _TEST, **own},
  }
  for part, fields in parts.items():
    spec.add(
      spec.TaskSpec(
        name=f"{stem}_{part}",
        benchmark="perceptron",
        dataset=f"{benchmark}_{dataset}",
        module=MODULE,
        source=f"{benchmark}/{dataset}:{version}",
        label_words=words,
        postprocess=postprocessors.LabelId(words),
        eval_features=("idx",),
        **fields,
      )
    )
  for mixture in ("perceptron", "generation"):
    members = [
      f"{stem}_{part}"
      for part in parts
      if (mixture == "perceptron") == part.startswith("perceptron")
    ]
    rates = dict.fromkeys(members, 1.0)
    spec.add(spec.MixtureSpec(f"{stem}_{mixture}", rates, MODULE))


for _benchmark, _datasets in HELD_OUT.items():
  for _dataset, _count in _datasets.items():
    _add(_benchmark, _dataset, _count)
