"""Which file is what, by its path."""

import pytest

from prompt_tuning.data import spec
from prompt_tuning.data.prepare import sources


def found(root, *files):
  """Touch files, then tell (dataset, split, path) of what is recognised."""
  for file in files:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
  return {
    (source.name, split, file.path.relative_to(root.resolve()).as_posix())
    for source, splits in sources.discover([root])
    for split, files in splits.items()
    for file in files
  }


def test_rte_of_glue_and_of_super_glue(tmp_path):
  assert found(
    tmp_path,
    "superglue/RTE/val.jsonl",
    "glue/RTE/val.jsonl",
  ) == {
    ("super_glue/rte", "validation", "superglue/RTE/val.jsonl"),
    ("glue/rte", "validation", "glue/RTE/val.jsonl"),
  }


def test_the_source_directory_itself_may_be_the_dataset(tmp_path):
  folder = tmp_path / "RTE"
  assert found(folder, "test.jsonl") == {
    ("super_glue/rte", "test", "test.jsonl")
  }
  folder = tmp_path / "GLUE"
  assert found(folder, "RTE/dev.tsv") == {
    ("glue/rte", "validation", "RTE/dev.tsv")
  }


def test_complete_files_win_over_parts_and_those_over_few_shot(tmp_path):
  assert found(
    tmp_path,
    "a/CB/train.jsonl",
    "a/CB/train_partial.jsonl",
    "a/CB/val_sample.jsonl",
    "fewglue/CB/train32.jsonl",
    "fewglue/CB/dev32.jsonl",
  ) == {
    ("super_glue/cb", "train", "a/CB/train.jsonl"),
    ("super_glue/cb", "validation", "a/CB/val_sample.jsonl"),
  }


def test_few_shot_files_alone_are_a_source(tmp_path):
  assert found(tmp_path, "fewglue/CB/dev32.jsonl") == {
    ("super_glue/cb", "validation", "fewglue/CB/dev32.jsonl")
  }


def test_other_additions_are_splits_of_their_own(tmp_path):
  splits = {
    split
    for _, split, _ in found(
      tmp_path, "imdb/train_partial_2.jsonl", "imdb/val_counterfactual.jsonl"
    )
  }
  assert splits == {"train", "validation_counterfactual"}


def test_mnli_validation_without_a_genre_counts_as_matched(tmp_path):
  assert found(tmp_path, "glue/MNLI/val_partial.jsonl") == {
    ("glue/mnli", "validation_matched", "glue/MNLI/val_partial.jsonl"),
    ("glue/mnli_matched", "validation", "glue/MNLI/val_partial.jsonl"),
  }


def test_mrqa_sets_have_one_split(tmp_path):
  assert {
    (name, split)
    for name, split, _ in found(
      tmp_path,
      "mrqa/RACE/train_partial.mrqa.jsonl",
      "mrqa/RACE/val_partial.mrqa.jsonl",
      "mrqa/DuoRC.ParaphraseRC.jsonl.gz",
    )
  } == {("mrqa/race", "test"), ("mrqa/duo_rc", "test")}


def test_two_places_for_one_split(tmp_path):
  with pytest.raises(ValueError, match="several folders have files of this"):
    found(tmp_path, "a/CB/train.jsonl", "b/CB/train.jsonl")


def test_nothing_there(tmp_path):
  with pytest.raises(FileNotFoundError, match="No source directory"):
    sources.discover([tmp_path / "missing"])
  with pytest.raises(FileNotFoundError, match="No known files below"):
    found(tmp_path, "notes.txt")


def test_a_directory_that_gives_nothing_is_named(tmp_path):
  for name in ("a/CB/train.jsonl", "b/notes.txt"):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("{}")
  with pytest.raises(FileNotFoundError, match=r"No known files below .*b\. "):
    sources.discover([tmp_path / "a", tmp_path / "b"])


def test_linked_folders_are_searched(tmp_path):
  (tmp_path / "real" / "CB").mkdir(parents=True)
  (tmp_path / "real" / "CB" / "train.jsonl").write_text("{}")
  (tmp_path / "links").mkdir()
  (tmp_path / "links" / "CB").symlink_to(tmp_path / "real" / "CB")
  ((source, splits),) = sources.discover([tmp_path / "links"])
  assert source.name == "super_glue/cb"
  assert list(splits) == ["train"]


# Summaries, C4 and SPoT's inference sets: nobody here has their files, so only
# TFDS itself brings them.
ONLY_FROM_TFDS = {
  *(f"anli/r{number}:0.1.0" for number in (1, 2, 3)),
  *("aeslc:1.0.0", "billsum:3.0.0", "c4/en:2.2.0", "cnn_dailymail:3.1.0"),
  *("cnn_dailymail:3.2.0", "doc_nli:1.0.0", "gigaword:1.2.0"),
  *("multi_news:1.0.0", "newsroom:1.0.0", "samsum:1.0.0", "snli:1.1.0"),
  "xsum:1.1.0",
}


def test_every_published_source_can_be_prepared_or_is_named():
  """Names and versions of the task catalogue and of `prepare` agree."""
  known = {
    f"{source.name}:{version}"
    for source in sources.all_sources()
    for version in source.versions
  }
  needed = {
    task.source
    for task in map(spec.get, spec.names())
    if isinstance(task, spec.TaskSpec) and task.is_from_tfds
  }
  assert needed - known == ONLY_FROM_TFDS
