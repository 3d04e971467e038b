"""Zero-shot transfer between the paraphrase tasks QQP and MRPC.

A prompt trained on one task is evaluated on the other's validation set; its
answers are label words of the training task, which are replaced by those of the
other task.

Source: the paper, section 5 and Table 2; names of the original.
"""

from prompt_tuning.data import postprocessors, spec
from prompt_tuning.data.catalog import glue
from prompt_tuning.data.catalog.variants import variants

MODULE = "prompt_tuning.data.tasks.glue_transfer"
# The positive label word; the negative one is the same after "not_".
_WORD = {"qqp": "duplicate", "mrpc": "equivalent"}


def _add(source: str, target: str, prefix: str, suffix: str) -> None:
  words = glue.LABEL_WORDS[target]
  name = f"{prefix}glue_{target}_from_{source}"
  task = spec.TaskSpec(
    name=f"{name}_v002{suffix}",
    benchmark="glue_transfer",
    dataset=f"{target}_from_{source}",
    module=MODULE,
    source=f"glue/{target}:{glue.VERSIONS['v002']}",
    splits={"validation": "validation"},
    label_words=words,
    postprocess=postprocessors.LabelId(
      words, rename=(_WORD[source], _WORD[target])
    ),
    metrics=glue.metrics_of(target),
    eval_features=("idx",),
    log_examples=bool(suffix),
  )
  spec.add(task)
  spec.add(
    spec.MixtureSpec(
      f"{name}_zeroshot_v002{suffix}",
      {f"{prefix}glue_{source}_v002": 1.0, task.name: 1.0},
      MODULE,
    )
  )


for _prefix, _suffix in variants():
  _add("qqp", "mrpc", _prefix, _suffix)
  _add("mrpc", "qqp", _prefix, _suffix)
