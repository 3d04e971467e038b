"""SQuAD v1.1, the MRQA 2019 sets, and zero-shot domain transfer.

Source: the paper, section 5 and Table 1; names of the original.
The text form starts with "question:", so that no `taskless_` names are needed.
"""

from prompt_tuning.data import postprocessors, spec
from prompt_tuning.data.catalog.variants import SUFFIXES
from prompt_tuning.data.metrics import qa

MODULE = "prompt_tuning.data.tasks.qa"
OUT_OF_DOMAIN = (
  "bio_asq",
  "drop",
  "duo_rc",
  "race",
  "relation_extraction",
  "textbook_qa",
)
IN_DOMAIN = (
  "news_qa",
  "trivia_qa",
  "search_qa",
  "hotpot_qa",
  "natural_questions",
)
_TRAINABLE = {"train": "train", "validation": "validation"}


def _add(dataset: str, name: str, source: str, splits: dict[str, str]) -> None:
  spec.add(
    spec.TaskSpec(
      name=name,
      benchmark="qa",
      dataset=dataset,
      module=MODULE,
      source=source,
      splits=splits,
      postprocess=postprocessors.qa,
      metrics=(qa.squad,),
      eval_features=("id", "answers"),
      log_examples=name.endswith("_examples"),
    )
  )


def _add_transfer(suffix: str) -> None:
  """Add SQuAD with one, and with all, of the out-of-domain sets."""
  squad = f"squad_v010_allanswers{suffix}"
  targets = {d: f"mrqa_{d}_v100{suffix}" for d in OUT_OF_DOMAIN}
  groups = {d: [name] for d, name in targets.items()}
  groups["mrqa"] = list(targets.values())
  for group, names in groups.items():
    rates = dict.fromkeys((squad, *names), 1.0)
    spec.add(spec.MixtureSpec(f"squad_to_{group}{suffix}", rates, MODULE))


for _suffix in SUFFIXES:
  _add(
    "squad",
    f"squad_v010_allanswers{_suffix}",
    "squad/v1.1:3.0.0",
    _TRAINABLE,
  )
  for _dataset in OUT_OF_DOMAIN + IN_DOMAIN:
    _add(
      _dataset,
      f"mrqa_{_dataset}_v100{_suffix}",
      f"mrqa/{_dataset}:1.0.0",
      # TFDS calls the out-of-domain evaluation sets "test".
      {"validation": "test"} if _dataset in OUT_OF_DOMAIN else _TRAINABLE,
    )
  _add_transfer(_suffix)
