"""XSum and CNN/Daily Mail: free text, scored by ROUGE.

Source: names, versions and text form of google-research/prompt-tuning. TFDS no
longer writes CNN/Daily Mail 3.1.0; it can read an existing folder.
"""

from prompt_tuning.data import spec
from prompt_tuning.data.catalog.variants import SUFFIXES
from prompt_tuning.data.metrics import rouge

MODULE = "prompt_tuning.data.tasks.summarization"
# Data set -> TFDS name and version, features with the text and its summary.
SOURCES = {
  "xsum": ("xsum:1.1.0", "document", "summary"),
  "cnn_dailymail": ("cnn_dailymail:3.1.0", "article", "highlights"),
}
SPLITS = {split: split for split in ("train", "validation", "test")}


def _add(dataset: str, suffix: str) -> None:
  source = SOURCES[dataset][0]
  version = source.partition(":")[2].replace(".", "")
  spec.add(
    spec.TaskSpec(
      name=f"{dataset}_v{version}{suffix}",
      benchmark="summarization",
      dataset=dataset,
      module=MODULE,
      source=source,
      splits=SPLITS,
      metrics=(rouge.rouge,),
      log_examples=bool(suffix),
    )
  )


for _suffix in SUFFIXES:
  for _dataset in SOURCES:
    _add(_dataset, _suffix)
