"""The cold path's way to the network."""

import pathlib
import types

import pytest
import tensorflow_datasets as tfds

from prompt_tuning.data import spec, tokenise


@pytest.fixture
def official_glue(tmp_path):
  """A download manager whose files are here already."""
  folder = tmp_path / "files" / "CoLA"
  folder.mkdir(parents=True)
  for split in ("train", "dev"):
    (folder / f"{split}.tsv").write_text("gj04\t1\t\tIt rained.\n")
  (folder / "test.tsv").write_text("index\tsentence\n0\tIt rained.\n")
  manager = types.SimpleNamespace(
    downloaded_size=0,
    download_and_extract=lambda url: str(tmp_path / "files"),
  )
  return lambda self, **unused: manager


def test_downloading_needs_nothing_that_is_not_installed(tmp_path):
  """TFDS 4.9.10 forgets to require importlib_resources, which this needs."""
  builder = tfds.builder("glue/sst2:2.0.0", data_dir=str(tmp_path))
  assert builder.builder_config.data_url in builder.url_infos


def test_a_source_is_fetched_where_it_belongs(tmp_path, monkeypatch):
  made = []

  def download_and_prepare(self, **unused):
    made.append(pathlib.Path(self.data_dir))

  monkeypatch.setattr(
    tfds.core.DatasetBuilder, "download_and_prepare", download_and_prepare
  )
  tokenise.fetch(spec.task("super_glue_cb_v102"), tmp_path)
  assert made == [tmp_path / "super_glue/cb/1.0.2"]


def test_glue_1_0_0_comes_from_2_0_0(official_glue, tmp_path, monkeypatch):
  """TFDS refuses to write the version of the paper, not to read it."""
  with pytest.raises(ValueError, match="too old for this version of TFDS"):
    tfds.builder(
      "glue/cola:1.0.0", data_dir=str(tmp_path)
    ).download_and_prepare()
  monkeypatch.setattr(
    tfds.core.DatasetBuilder, "_make_download_manager", official_glue
  )
  tokenise.fetch(spec.task("glue_cola_v002"), tmp_path)
  data = tfds.load("glue/cola:1.0.0", split="train", data_dir=str(tmp_path))
  assert [row["label"] for row in data.as_numpy_iterator()] == [1]


def test_no_network(tmp_path, monkeypatch):
  def unreachable(self, **unused):
    raise ConnectionError("no route to host")

  monkeypatch.setattr(
    tfds.core.DatasetBuilder, "download_and_prepare", unreachable
  )
  with pytest.raises(ValueError, match=r"no route to host.*data prepare"):
    tokenise.fetch(spec.task("super_glue_cb_v102"), tmp_path)
