"""Classification of texts: topics, sentiments, and answers of a choice.

AG News, DBpedia, Yahoo Answers, IMDB, Amazon reviews, SST-5 and RACE. Not in
the paper: the benchmarks of KPT and PPT. Names follow the pattern of the
others. Most have no validation split; users may choose `train[...]` slices or
k-shot subsets.
"""

import functools

from prompt_tuning.data import postprocessors, spec
from prompt_tuning.data.catalog.variants import TASKLESS, variants
from prompt_tuning.data.metrics import classification

MODULE = "prompt_tuning.data.tasks.text_classification"

# Dataset -> TFDS name. TFDS has no builder for most of them:
# `prompt-tuning data prepare` makes their directories.
SOURCES = {
  "ag_news": "ag_news_subset:1.0.0",
  "dbpedia": "dbpedia_14:1.0.0",
  "imdb": "imdb_reviews/plain_text:1.0.0",
  "amazon": "amazon_review_full:1.0.0",
  "amazon_polarity": "amazon_review_polarity:1.0.0",
  "yahoo": "yahoo_answers_topics:1.0.0",
  "sst5": "sst5:1.0.0",
  "race": "race:1.0.0",
}
# Datasets that TFDS has.
OF_TFDS = ("ag_news", "imdb")
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
  "amazon_polarity": ("negative", "positive"),
  "yahoo": (
    "Society & Culture",
    "Science & Mathematics",
    "Health",
    "Education & Reference",
    "Computers & Internet",
    "Sports",
    "Business & Finance",
    "Entertainment & Music",
    "Family & Relationships",
    "Politics & Government",
  ),
  "sst5": (
    *("very negative", "negative", "neutral", "positive", "very positive"),
  ),
  "race": ("A", "B", "C", "D"),
}
TEXT_FEATURES = {
  "ag_news": ("title", "description"),
  "dbpedia": ("title", "content"),
  "imdb": ("text",),
  "amazon": ("text",),
  "amazon_polarity": ("text",),
  "yahoo": ("title", "content", "answer"),
  "sst5": ("sentence",),
  "race": ("question", "a", "b", "c", "d", "article"),
}
# Splits besides `train` and `test`.
VALIDATED = ("sst5", "race")
# Words that the frozen model knows, for class names that are not words.
LABEL_WORDS = {
  **CLASS_NAMES,
  "imdb": ("negative", "positive"),
  "amazon": ("terrible", "bad", "okay", "good", "great"),
  "yahoo": (
    *("society", "science", "health", "education", "computers", "sports"),
    *("business", "entertainment", "relationships", "politics"),
  ),
  "sst5": ("terrible", "bad", "okay", "good", "great"),
}


def _add(dataset: str, prefix: str, suffix: str) -> None:
  words = LABEL_WORDS[dataset]
  splits = ["train", "test"]
  if dataset in VALIDATED:
    splits.insert(1, "validation")
  spec.add(
    spec.TaskSpec(
      name=f"{prefix}{dataset}_v100{suffix}",
      benchmark="text_classification",
      dataset=dataset,
      module=MODULE,
      source=SOURCES[dataset],
      splits={split: split for split in splits},
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
