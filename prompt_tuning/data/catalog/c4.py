"""C4 with BART's noise, and C4 with answers without meaning.

The first two teach a model to write whole texts; the third measures how much a
prompt learns from the words of a label alone. Names of the original.

Deviation: noise is drawn once, but in every pass in the original; texts are cut
into pieces of 512 tokens, for any `TASK_FEATURE_LENGTHS`.
"""

from collections.abc import Mapping
from typing import Any

from prompt_tuning.data import spec

MODULE = "prompt_tuning.data.tasks.c4"
TEXT_INFILLING, TOKEN_DELETION = "text_infilling", "token_deletion"
RANDOM_TARGETS = "random_targets"

_HOW: Mapping[str, Mapping[str, Any]] = {
  "bart_text_infilling": {"noise": TEXT_INFILLING, "mean_span": 3},
  "bart_token_deletion": {"noise": TOKEN_DELETION},
  "random_positive_negative_targets": {
    "noise": RANDOM_TARGETS,
    "targets": ("positive", "negative"),
  },
}


def _add(dataset: str) -> None:
  spec.add(
    spec.TaskSpec(
      name=f"c4_v220_{dataset}",
      benchmark="c4",
      dataset=dataset,
      module=MODULE,
      source="c4/en:2.2.0",
      splits={"train": "train", "validation": "validation"},
      content={"density": 0.15, "chunk_length": 512, **_HOW[dataset]},
    )
  )


for _dataset in _HOW:
  _add(_dataset)
