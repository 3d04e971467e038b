"""A short run in a bucket, killed at operations spread over all of it.

As `test_every_operation` on a disk: whatever a kill left, the same command then
ends as a run that nobody disturbed.
"""

import contextlib
import json

import pytest

from prompt_tuning.checkpoints import bundle
from prompt_tuning.core import files, object_store, sole_writer
from prompt_tuning.train import logs
from tests.bucket_servers import get_tree
from tests.failing_files import Killed
from tests.jobs.short_run import ShortRun, without_pictures

CHANGES = ("put", "put_file", "create", "delete")
KILLS = 12


class Store:
  """Counts what changes objects, and lets a process die at one of them."""

  def __init__(self, monkeypatch, moment=None):
    self.calls, self._dead = [], False
    self._moment = moment
    for name in CHANGES:
      operation = getattr(object_store, name)
      monkeypatch.setattr(object_store, name, self._counted(name, operation))

  def _counted(self, name, operation):
    def wrapped(url, *rest):
      if self._dead or len(self.calls) == self._moment:
        self._dead = True
        raise Killed
      if url.name != sole_writer.FILE or name == "create":
        self.calls.append((name, str(url)))
      operation(url, *rest)

    return wrapped


def content(folder):
  """Read every object; of the log what does not depend on the clock."""
  found = {
    name: data.replace(folder.encode(), b"FOLDER")
    for name, data in get_tree(folder).items()
  }
  lines = map(json.loads, found.pop(logs.FILE).splitlines())
  found["log"] = [
    {tag: value for tag, value in line.items() if "/timing/" not in tag}
    for line in lines
  ]
  return found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  with without_pictures():
    folder = tmp_path_factory.mktemp("first")
    yield ShortRun(folder, tmp_path_factory.mktemp("data"))


def test_it_ends_as_if_nobody_had_killed_it(bucket, run, tmp_path, monkeypatch):
  monkeypatch.setattr(sole_writer, "_SETTLED_S", 0)
  with pytest.MonkeyPatch.context() as patch:
    store = Store(patch)
    whole = bucket.folder()
    run(whole)
  expected = content(whole)
  assert len(store.calls) > 40
  # What a disk has, but for what names the folder, byte by byte.
  run(tmp_path)
  for name, data in expected.items():
    if name.endswith((".safetensors", ".npy", ".jsonl")):
      assert (tmp_path / name).read_bytes() == data
  for kill in range(KILLS):
    moment = (len(store.calls) - 1) * kill // (KILLS - 1)
    folder = bucket.folder()
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
      Store(patch, moment)
      run(folder)
      pytest.fail(f"operation {moment} did not fail")
    for manifest in bundle.manifests(f"{folder}/bundles"):
      for k, record in enumerate(manifest["progress"]["best"]):
        if record is not None:
          best = f"{folder}/best/run_{k}"
          assert bundle.is_bundle(bundle.step_path(best, record["step"]))
    run(folder)
    assert content(folder) == expected, store.calls[moment]
  assert files.names(whole)
