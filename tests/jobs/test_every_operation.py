"""A short run whose n-th operation on the disk fails, for every n.

With evaluation, bests, exports and summary. Whatever it left, the same command
then ends as a run that nobody disturbed: with the same bytes, and no others.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from prompt_tuning.checkpoints import bundle
from prompt_tuning.core import files, sole_writer
from prompt_tuning.train import logs
from tests.failing_files import Disk, Killed, Store, full_disk
from tests.jobs.short_run import ShortRun, without_pictures

CHILDREN = 10
KILLS = {"gs": 8, "s3": 1}  # in a bucket; S3's server is slow


def content(folder):
  """Read every file; of the log what does not depend on the clock."""
  root = files.path(folder)
  found = {
    name: (root / name).read_bytes().replace(os.fsencode(folder), b"FOLDER")
    for name in sorted(files.names_below(folder))
  }
  lines = map(json.loads, found.pop(logs.FILE).splitlines())
  found["log"] = [
    {tag: value for tag, value in line.items() if "/timing/" not in tag}
    for line in lines
  ]
  return found


def insist_records(folder):
  """Insist that whatever the record of a bundle names is there."""
  root = files.path(folder)
  for manifest in bundle.manifests(root / "bundles"):
    for run, record in enumerate(manifest["progress"]["best"]):
      if record is not None:
        best = root / "best" / f"run_{run}"
        assert bundle.read(bundle.step_path(best, record["step"])).trainable


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
  """The run; what it writes need not survive this machine."""
  with pytest.MonkeyPatch.context() as patch, without_pictures():
    patch.setattr(os, "fsync", lambda descriptor: None)
    yield ShortRun(tmp_path_factory.mktemp("first"), data)


@pytest.fixture(scope="module")
def undisturbed(run, tmp_path_factory):
  """What it writes, and how many operations that takes."""
  folder = tmp_path_factory.mktemp("undisturbed")
  with pytest.MonkeyPatch.context() as patch:
    disk = Disk(patch)
    run(folder)
  names = {path.name for path in folder.iterdir()}
  assert names >= {"best", "bundles", "exports", "inference_eval"}
  assert names >= {"summary.txt", "learning_curve.png", logs.FILE}
  best = [bundle.steps(folder / "best" / f"run_{k}") for k in (0, 1)]
  assert best == [[2], [4]], "a best has to take another one's place"
  return content(folder), len(disk.calls)


@pytest.mark.parametrize(("error", "every"), [(Killed, 1), (full_disk, 5)])
def test_it_ends_as_if_nothing_had_happened(
  error, every, run, undisturbed, tmp_path
):
  expected, operations = undisturbed
  assert operations > 100
  for moment in range(0, operations, every):
    folder = tmp_path / "run"

    def fails(number, *_, at=moment):
      return number == at and error()

    with (
      pytest.MonkeyPatch.context() as patch,
      contextlib.suppress(Killed, OSError, ValueError),
    ):
      Disk(patch, fails)
      run(folder)
      pytest.fail(f"operation {moment} did not fail")
    insist_records(folder)
    run(folder)
    assert content(folder) == expected, f"operation {moment}"
    shutil.rmtree(folder)


def test_in_a_bucket_it_ends_as_on_a_disk(
  bucket, run, undisturbed, monkeypatch
):
  """Undisturbed, and dying at operations spread over the whole run."""
  monkeypatch.setattr(sole_writer, "_SETTLED_S", 0)
  # A dead process gives no sign of life; here a thread would, to a dead store.
  monkeypatch.setattr(sole_writer, "SIGN", 3600.0)
  expected, _ = undisturbed
  folder = bucket.folder()
  with pytest.MonkeyPatch.context() as patch:
    store = Store(patch)
    run(folder)
  assert content(folder) == expected
  last = len(store.calls) - 1
  assert last > 40
  kills = KILLS[bucket.url[:2]]
  for kill in range(kills):
    moment = last * (2 * kill + 1) // (2 * kills)
    folder = bucket.folder()
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
      Store(patch, lambda number, at=moment: number == at and Killed())
      run(folder)
      pytest.fail(f"operation {moment} did not fail")
    insist_records(folder)
    run(folder)
    assert content(folder) == expected, store.calls[moment]


def test_it_ends_as_if_nobody_had_killed_it(
  run, undisturbed, data, gs, tmp_path
):
  """SIGKILL, at operations spread over the whole run; once in a bucket."""
  expected, operations = undisturbed
  moments = [
    *(str(operations * i // CHILDREN + 3) for i in range(CHILDREN)),
    f"{gs.folder()}@20",
  ]
  command = [sys.executable, "-m", "tests.jobs.short_run", tmp_path, data]
  done = subprocess.run(
    [*map(str, command), *moments],
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  ended = [line.split() for line in done.stdout.splitlines()]
  assert ended == [[moment, str(-signal.SIGKILL)] for moment in moments]
  for moment in moments:
    url = moment.rpartition("@")[0]
    folder = url or tmp_path / moment
    insist_records(folder)
    run(folder)
    assert content(folder) == expected, f"operation {moment}"
