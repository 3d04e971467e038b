"""Names that stay inside a checkpoint, and files that are whole or absent."""

import os
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.checkpoints import paths
from prompt_tuning.checkpoints.errors import CheckpointError


@given(st.text("./ab\0", max_size=12))
def test_nothing_resolves_outside(tmp_path_factory, name):
  folder = str(tmp_path_factory.getbasetemp())
  try:
    path = paths.inside(folder, name)
  except CheckpointError:
    return
  assert path.startswith(os.path.realpath(folder) + os.sep)


@pytest.mark.parametrize("name", ["a", "a/", "./a", "/b/a", "/b/a//", "b/a"])
def test_ways_to_name_a_folder_inside(tmp_path, name):
  (tmp_path / "a").mkdir()
  assert paths.inside(str(tmp_path), name) == str(tmp_path / "a")
  assert paths.inside(str(tmp_path), str(tmp_path / "a")) == str(tmp_path / "a")


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_replacing(tmp_path, kind, overwrite):
  target = tmp_path / "new" / "target"

  def write(name, text):
    if kind == "folder":
      os.mkdir(name)
      name = os.path.join(name, "checkpoint")
    with open(name, "w") as file:
      file.write(text)

  def read():
    return (target / "checkpoint" if kind == "folder" else target).read_text()

  with paths.replacing(target) as name:
    write(name, "first")
    assert not target.exists()
  assert read() == "first"
  if overwrite:
    with paths.replacing(target, True, os.path.exists) as name:
      write(name, "second")
      assert read() == "first"
    assert read() == "second"
  else:
    with (
      pytest.raises(CheckpointError, match="something already there"),
      paths.replacing(target),
    ):
      raise AssertionError("not reached")
    assert read() == "first"
  assert os.listdir(tmp_path / "new") == ["target"]


def test_a_failing_body_leaves_no_trace(tmp_path):
  def fail():
    with paths.replacing(tmp_path / "target", overwrite=True) as name:
      pathlib.Path(name).write_text("half")
      raise RuntimeError("halfway")

  (tmp_path / "target").write_text("kept")
  with pytest.raises(RuntimeError, match="halfway"):
    fail()
  assert os.listdir(tmp_path) == ["target"]
  assert (tmp_path / "target").read_text() == "kept"


def test_a_place_that_cannot_be_written_to(tmp_path):
  (tmp_path / "file").write_text("not a folder")
  with (
    pytest.raises(CheckpointError, match="a place to write to"),
    paths.replacing(tmp_path / "file" / "target"),
  ):
    raise AssertionError("not reached")


@pytest.mark.parametrize(
  ("there", "overwrite", "own", "replaced"),
  [
    ("empty", False, os.path.exists, False),
    ("empty", True, os.path.isfile, True),
    ("full", True, os.path.isfile, False),
    ("full", True, os.path.isdir, True),
    ("file", True, os.path.isfile, True),
    ("file", True, os.path.isdir, False),
    ("file", os.path.isfile, os.path.isdir, True),
    ("full", os.path.isfile, os.path.isdir, False),
  ],
)
def test_what_may_be_replaced(tmp_path, there, overwrite, own, replaced):
  (tmp_path / "empty").mkdir()
  (tmp_path / "full").mkdir()
  (tmp_path / "full" / "thesis.tex").write_text("years of work")
  (tmp_path / "file").write_text("years of work")
  target = tmp_path / there
  before = sorted(tmp_path.glob("**/*"))
  if replaced:
    with paths.replacing(target, overwrite, own) as name:
      pathlib.Path(name).write_text("new")
    assert target.read_text() == "new"
    return
  with (
    pytest.raises(CheckpointError, match=r"delete it yourself|Choose another"),
    paths.replacing(target, overwrite, own),
  ):
    raise AssertionError("not reached")
  assert sorted(tmp_path.glob("**/*")) == before
