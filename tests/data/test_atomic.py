"""A file appears complete or not at all."""

import errno
import os
import pathlib

import pytest

from prompt_tuning.data import atomic


def test_writes_and_replaces(tmp_path):
  path = tmp_path / "a.txt"
  atomic.write_text(path, "grün\n")
  assert path.read_bytes() == "grün\n".encode()
  atomic.write_text(path, "two")
  assert path.read_text() == "two"
  assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
  path = tmp_path / "a.txt"
  path.write_text("old")

  def fail(self, target):
    raise OSError("disk full")

  monkeypatch.setattr(pathlib.Path, "replace", fail)
  with pytest.raises(OSError, match="disk full"):
    atomic.write_text(path, "new")
  assert path.read_text() == "old"
  assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_names_a_missing_directory(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"nowhere to write a\.txt"):
    atomic.write_text(tmp_path / "nowhere" / "a.txt", "x")


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
  """The operating system does not say which file it was about."""

  def full(descriptor):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(os, "fsync", full)
  with pytest.raises(OSError, match=r"No space left .*a\.txt'$") as caught:
    atomic.write_text(tmp_path / "a.txt", "new")
  assert caught.value.errno == errno.ENOSPC
  assert not list(tmp_path.iterdir())
