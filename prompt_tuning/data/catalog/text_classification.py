"""Topic and sentiment classification: AG News, DBpedia, IMDB, Amazon reviews.

Not in the paper: the benchmarks of verbalizer research. Names follow the
pattern of the others. They have no validation split; `train[...]` slices or
k-shot subsets are the user's choice.
"""

import functools

from prompt_tuning.data import postprocessors, spec
from prompt_tuning.data.catalog.variants import TASKLESS, variants
from prompt_tuning.data.metrics import classification

MODULE = "prompt_tuning.data.tasks.text_classification"

# Dataset -> TFDS name. TFDS has no builder for DBpedia and the five-class
# Amazon reviews: `prompt-tuning data prepare` makes their directories.
SOURCES = {
  "ag_news": "ag_news_subset:1.0.0",
  "dbpedia": "dbpedia_14:1.0.0",
  "imdb": "imdb_reviews/plain_text:1.0.0",
  "amazon": "amazon_review_full:1.0.0",
}
# Names of the TFDS `label` feature, in order, and the other features.
CLASS_NAMES = {
  "ag_news": ("World", "Sports", "Business", "Sci/Tech"),
  "dbpedia": (
    "Company",
    "EducationalInstitution",
    "Artist",
    "Athlete",
    "OfficeHolder",
    "MeanOfTransportation",
    "Building",
    "NaturalPlace",
    "Village",
    "Animal",
    "Plant",
    "Album",
    "Film",
    "WrittenWork",
  ),
  "imdb": ("neg", "pos"),
  "amazon": ("1", "2", "3", "4", "5"),
}
TEXT_FEATURES = {
  "ag_news": ("title", "description"),
  "dbpedia": ("title", "content"),
  "imdb": ("text",),
  "amazon": ("text",),
}
# Where the class names are no words, words that the frozen model knows.
LABEL_WORDS = {
  **CLASS_NAMES,
  "imdb": ("negative", "positive"),
  "amazon": ("terrible", "bad", "okay", "good", "great"),
}


def _add(dataset: str, prefix: str, suffix: str) -> None:
  words = LABEL_WORDS[dataset]
  spec.add(
    spec.TaskSpec(
      name=f"{prefix}{dataset}_v100{suffix}",
      benchmark="text_classification",
      dataset=dataset,
      module=MODULE,
      source=SOURCES[dataset],
      splits={"train": "train", "test": "test"},
      label_words=words,
      postprocess=postprocessors.LabelId(words),
      metrics=(
        classification.accuracy,
        functools.partial(classification.label_statistics, words),
      ),
      log_examples=bool(suffix),
    )
  )


for _prefix, _suffix in variants(("", TASKLESS)):
  for _dataset in SOURCES:
    _add(_dataset, _prefix, _suffix)
