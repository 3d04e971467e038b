"""The official files of every TFDS dataset; no TensorFlow."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prompt_tuning.data.prepare import layouts, relations

# A file's name up to its ending. `_partial`, `_partial_2`, `_sample` and the
# `32` of FewGLUE mark a part of the official split; any other addition makes a
# split of its own (`train_counterfactual`), which the published data lacks.
_PART = r"(?P<part>_partial\w*|_sample|32)?"
_OTHER = r"(?P<other>_(?!partial|sample)[a-z]+)?"
_STEM = rf"(?P<split>train|val|dev|test){_PART}{_OTHER}"
_USUAL_SPLITS = {"val": "validation", "dev": "validation"}
COMPLETE, PART, FEW_SHOT = range(3)


class File(NamedTuple):
  """A file that belongs to a dataset.

  Attributes:
    path: path of the file.
    split: TFDS split.
    layout: how to read it.
    extent: `COMPLETE`, `PART` or `FEW_SHOT`, from its name.
    collection: the path before the recognised part.
  """

  path: pathlib.Path
  split: str
  layout: layouts.Layout
  extent: int
  collection: str


@dataclasses.dataclass(frozen=True)
class Source:
  """One TFDS dataset and the files of its rows.

  Attributes:
    name: TFDS name with config, such as `super_glue/boolq`.
    files: (pattern of the end of a path, layout) pairs; the path starts with
      the source directory's own name. Group `split` is the split, `test` if
      there is none; `part` and `other` see `_STEM`.
    versions: TFDS versions to write, the newest first.
    splits: file split -> TFDS split, if they differ from the usual ones.
    official: number of rows of the complete splits, if known.
  """

  name: str
  files: Sequence[tuple[str, layouts.Layout]]
  versions: tuple[str, ...] = ("1.0.0",)
  splits: Mapping[str, str] = dataclasses.field(default_factory=dict)
  official: Mapping[str, int] = dataclasses.field(default_factory=dict)

  def match(self, path: pathlib.Path, below: pathlib.Path) -> File | None:
    """Return the file's description if it belongs to this dataset.

    Args:
      path: path of the file.
      below: the source directory.
    """
    text = (below.name / path.relative_to(below)).as_posix()
    for pattern, layout in self.files:
      match = re.search(rf"(?:^|(?<=/)){pattern}$", text, re.IGNORECASE)
      if not match:
        continue
      groups = match.groupdict()
      split = (groups.get("split") or "test").lower()
      split = self.splits.get(split, _USUAL_SPLITS.get(split, split))
      part = groups.get("part")
      extent = FEW_SHOT if part == "32" else PART if part else COMPLETE
      split += groups.get("other") or ""
      collection = str(below / text[: match.start()])
      return File(path, split, layout, extent, collection)
    return None


def _rows(train: int, validation: int, test: int) -> dict[str, int]:
  return {"train": train, "validation": validation, "test": test}


def _super_glue() -> list[Source]:
  folders = {
    "boolq": ("BoolQ", _rows(9_427, 3_270, 3_245)),
    "cb": ("CB", _rows(250, 56, 250)),
    "copa": ("COPA", _rows(400, 100, 500)),
    "multirc": ("MultiRC", _rows(27_243, 4_848, 9_693)),
    "record": ("ReCoRD", _rows(100_730, 10_000, 10_000)),
    # GLUE has a folder of this name, too.
    "rte": (r"(?<!\bglue/)RTE", _rows(2_490, 277, 3_000)),
    "wic": ("WiC", _rows(5_428, 638, 1_400)),
    "wsc": ("WSC", _rows(554, 104, 146)),
    "wsc.fixed": ("WSC", _rows(554, 104, 146)),
  }
  layout, versions = layouts.SuperGlue(), ("1.0.2",)
  sources = [
    Source(
      f"super_glue/{config}",
      [(rf"{folder}/{_STEM}\.jsonl", layout)],
      versions,
      official=official,
    )
    for config, (folder, official) in folders.items()
  ]
  for config, name, count in (("axb", "AX-b", 1_104), ("axg", "AX-g", 356)):
    files = [(rf"{name}/{name}{_PART}\.jsonl", layout)]
    source = Source(f"super_glue/{config}", files, versions)
    sources.append(dataclasses.replace(source, official={"test": count}))
  return sources


def _glue() -> list[Source]:
  folders = {
    "cola": ("CoLA", _rows(8_551, 1_043, 1_063)),
    "sst2": ("SST-2", _rows(67_349, 872, 1_821)),
    "mrpc": ("MRPC", _rows(3_668, 408, 1_725)),
    "qqp": ("QQP", _rows(363_846, 40_430, 390_965)),
    "stsb": ("STS-B", _rows(5_749, 1_500, 1_379)),
    "qnli": ("QNLI", _rows(104_743, 5_463, 5_463)),
    "rte": ("RTE", _rows(2_490, 277, 3_000)),
    "wnli": ("WNLI", _rows(635, 71, 146)),
  }
  sources = [
    _glue_source(config, rf"{folder}/{_STEM}", official)
    for config, (folder, official) in folders.items()
  ]
  ax = _glue_source("ax", "", {"test": 1_104})
  files = [(r"diagnostic(?:-full)?\.tsv", layouts.GlueTsv())]
  return [*sources, dataclasses.replace(ax, files=files), *_mnli()]


def _glue_source(
  config: str,
  pattern: str,
  official: Mapping[str, int],
  splits: Mapping[str, str] | None = None,
) -> Source:
  files = (
    (rf"glue/{pattern}\.jsonl", layouts.GlueJsonl()),
    (rf"{pattern}\.tsv", layouts.GlueTsv()),
  )
  versions = ("2.0.0", "1.0.0")
  return Source(f"glue/{config}", files, versions, splits or {}, official)


def _mnli() -> list[Source]:
  """Return MNLI's three configs, which share their evaluation files.

  A validation file without genres counts as matched: the one that we have is a
  part of the training set, and has its genres.
  """
  rows = {
    "matched": {"validation": 9_815, "test": 9_796},
    "mismatched": {"validation": 9_832, "test": 9_847},
  }
  every = {"train": 392_702}
  spellings = {"val": "validation_matched", "dev": "validation_matched"}
  for genre, sizes in rows.items():
    every.update({f"{split}_{genre}": n for split, n in sizes.items()})
    files = {"val": "validation", "dev": "validation", "test": "test"}
    spellings.update({f"{f}_{genre}": f"{s}_{genre}" for f, s in files.items()})
  pattern = (
    r"MNLI/(?P<split>train|val|dev|(?:val|dev|test)_(?:mismatched|matched))"
  )
  matched = rf"MNLI/(?P<split>val|dev|test(?=_))(?:_matched)?{_PART}"
  mismatched = rf"MNLI/(?P<split>val|dev|test)_mismatched{_PART}"
  return [
    _glue_source("mnli", pattern + _PART, every, spellings),
    _glue_source("mnli_matched", matched, rows["matched"]),
    _glue_source("mnli_mismatched", mismatched, rows["mismatched"]),
  ]


def _question_answering() -> list[Source]:
  squad = Source(
    "squad/v1.1",
    (
      (r"(?P<split>train|dev)-v1\.1\.json", layouts.Squad()),
      (rf"squad/(?P<split>train|dev){_PART}\.json", layouts.Squad()),
    ),
    ("3.0.0",),
    official={"train": 87_599, "validation": 10_570},
  )
  out_of_domain = {
    "bio_asq": ("BioASQ", 1_504),
    "drop": ("DROP", 1_503),
    "duo_rc": ("DuoRC", 1_501),
    "race": ("RACE", 674),
    "relation_extraction": ("RelationExtraction", 2_948),
    "textbook_qa": ("TextbookQA", 1_503),
  }
  in_domain = {
    "squad": "SQuAD",
    "news_qa": "NewsQA",
    "trivia_qa": "TriviaQA-web",
    "search_qa": "SearchQA",
    "hotpot_qa": "HotpotQA",
    "natural_questions": "NaturalQuestionsShort",
  }
  # Every file of an out-of-domain set is part of the only split, `test`.
  sets = [
    Source(
      f"mrqa/{config}",
      (
        (rf"{name}(?:\.ParaphraseRC)?\.jsonl(?:\.gz)?", layouts.Mrqa()),
        (rf"{name}/(?:train|val|dev|test){_PART}\.mrqa\.jsonl", layouts.Mrqa()),
      ),
      official={"test": count},
    )
    for config, (name, count) in out_of_domain.items()
  ]
  for config, name in in_domain.items():
    pattern = rf"(?P<split>train|dev)/{name}\.jsonl(?:\.gz)?"
    sets.append(Source(f"mrqa/{config}", [(pattern, layouts.Mrqa())]))
  return [squad, *sets]


def _text_classification() -> list[Source]:
  folders = {
    "ag_news_subset": ("ag_?news", 120_000, 7_600),
    "dbpedia_14": ("dbpedia", 560_000, 70_000),
    "amazon_review_full": (r"amazon(?!\w*polarity)", 3_000_000, 650_000),
    "yahoo_answers_topics": ("yahoo", 1_400_000, 60_000),
  }
  sources = [
    Source(
      name,
      (
        (rf"{folder}/{_STEM}\.jsonl", layouts.Labelled()),
        (rf"{folder}\w*/(?P<split>train|test)\.csv", layouts.LabelledCsv()),
      ),
      official={"train": train, "test": test},
    )
    for name, (folder, train, test) in folders.items()
  ]
  # Amazon reviews in two classes, or those in five classes reduced to two.
  polarity = Source(
    "amazon_review_polarity",
    (
      (rf"amazon(?!\w*polarity)/{_STEM}\.jsonl", layouts.Polarity()),
      (
        r"amazon\w*polarity\w*/(?P<split>train|test)\.csv",
        layouts.LabelledCsv(),
      ),
    ),
    official={"train": 3_600_000, "test": 400_000},
  )
  sst5 = Source(
    "sst5",
    (
      (rf"sst-?5/{_STEM}\.jsonl", layouts.Labelled()),
      (r"trees/(?P<split>train|dev|test)\.txt", layouts.Trees()),
    ),
    official=_rows(8_544, 1_101, 2_210),
  )
  race = Source(
    "race",
    (
      (rf"race/{_STEM}\.jsonl", layouts.Choices()),
      (
        r"RACE/(?P<split>train|dev|test)/(?:high|middle)/\d+\.txt",
        layouts.ChoicesOfArticle(),
      ),
    ),
    official=_rows(87_866, 4_887, 4_934),
  )
  reviews = r"aclImdb/(?P<split>train|test)/(?:neg|pos)/\d+_\d+\.txt"
  reviews_without_label = r"aclImdb/train/(?P<split>unsup)/\d+_\d+\.txt"
  imdb = Source(
    "imdb_reviews/plain_text",
    (
      (rf"imdb/{_STEM}\.jsonl", layouts.Labelled()),
      (reviews, layouts.ReviewFile()),
      (reviews_without_label, layouts.ReviewFile()),
    ),
    splits={"unsup": "unsupervised"},
    official={"train": 25_000, "test": 25_000, "unsupervised": 50_000},
  )
  return [*sources, polarity, sst5, race, imdb]


def _relations() -> list[Source]:
  spans, tacred = relations.TokenSpans(), relations.Tacred()
  semeval = (
    (rf"semeval[\w-]*/{_STEM}\.jsonl", spans),
    (r"(?P<split>TRAIN)_FILE\.TXT", relations.SemEval()),
    (r"(?P<split>TEST)_FILE_FULL\.TXT", relations.SemEval()),
  )
  rows = {"train": 8_000, "test": 2_717}
  sources = [Source("semeval2010_task8", semeval, official=rows)]
  for name, folder, *counts in (
    ("tacred", "tacred", 68_124, 22_631, 15_509),
    ("tacrev", "tacrev", 68_124, 22_631, 15_509),
    ("retacred", "re-?tacred", 58_465, 19_584, 13_418),
  ):
    path = rf"{folder}/{_STEM}\."
    files = ((path + "json", tacred), (path + "jsonl", spans))
    sources.append(Source(name, files, official=_rows(*counts)))
  for name, splits, dialogues, official in (
    ("", "train|dev|test", relations.Dialogues(), {"train": 5_963}),
    ("_conversational", "dev|test", relations.Dialogues(every_turn=True), {}),
  ):
    pattern = rf"dialogre/(?P<split>{splits})\.json"
    sources.append(
      Source(f"dialogre{name}", [(pattern, dialogues)], official=official)
    )
  return sources


def all_sources() -> list[Source]:
  """Return every dataset that can be prepared."""
  dpr = Source(
    "definite_pronoun_resolution",
    [(r"(?P<split>train|test)\.c\.txt", layouts.Dpr())],
    ("1.1.0",),
    official={"train": 1_322, "test": 564},
  )
  return [
    *_super_glue(),
    dpr,
    *_glue(),
    *_question_answering(),
    *_text_classification(),
    *_relations(),
  ]


def discover(
  directories: Sequence[pathlib.Path],
) -> list[tuple[Source, dict[str, list[File]]]]:
  """Find the files of every dataset.

  A complete file is preferred to parts of the same split, and parts to
  FewGLUE's; several parts together form the split.

  Args:
    directories: directories to search, with all their subdirectories.

  Returns:
    (source, split -> its files in the order of their names) for every dataset
    with at least one file.

  Raises:
    FileNotFoundError: a directory does not exist, or nothing in it was
      recognised.
    ValueError: files of two places claim one split.
  """
  paths = []
  for directory in directories:
    if not directory.is_dir():
      raise FileNotFoundError(f"No source directory {directory}.")
    root = directory.resolve()
    paths += [(path, root) for path in _files_below(root)]
  datasets, unknown = [], {root for _, root in paths}
  unknown |= {directory.resolve() for directory in directories}
  for source in all_sources():
    matches = [(source.match(path, root), root) for path, root in paths]
    unknown -= {root for file, root in matches if file}
    splits = _choose(source, [file for file, _ in matches if file])
    if splits:
      datasets.append((source, splits))
  if unknown:
    raise FileNotFoundError(
      f"No known files below {', '.join(sorted(map(str, unknown)))}. Expected "
      "the official layout, for instance BoolQ/train.jsonl, SST-2/train.tsv, "
      "train-v1.1.json, RACE.jsonl.gz or ag_news/train.csv; name the folder "
      "above those."
    )
  return datasets


def _files_below(root: pathlib.Path) -> list[pathlib.Path]:
  """List all files, in linked folders too."""
  return sorted(
    pathlib.Path(folder, name)
    for folder, _, names in os.walk(root, followlinks=True)
    for name in names
  )


def _choose(source: Source, files: list[File]) -> dict[str, list[File]]:
  splits: dict[str, list[File]] = {}
  for file in files:
    splits.setdefault(file.split, []).append(file)
  for split, claims in splits.items():
    best = min(file.extent for file in claims)
    best_files = [file for file in claims if file.extent == best]
    collections = sorted({file.collection for file in best_files})
    if len(collections) > 1:
      raise ValueError(
        f"{source.name} {split}: several folders have files of this split: "
        f"{', '.join(collections)}. Give only one of them as --source."
      )
    splits[split] = best_files
  return dict(sorted(splits.items(), key=lambda item: _rank(item[0])))


def _rank(split: str) -> tuple[int, str]:
  """Order splits in the usual way: train, validation, test, others."""
  usual = ("train", "validation", "test")
  kind = split.split("_")[0]
  return usual.index(kind) if kind in usual else len(usual), split
