"""Files in buckets, against real servers."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from prompt_tuning.core import files, object_store, sole_writer
from prompt_tuning.core.growing import Appended, Growing, Mirrored
from tests.bucket_servers import get_tree


def test_files_and_folders(bucket, tmp_path):
  root = bucket.folder()
  assert not files.exists(root)
  assert files.names(root) == []
  files.ensure_writable(root, "MODEL_DIR")
  assert not files.exists(root)
  files.write_text(f"{root}/a/b.txt", "text")
  files.write_texts(f"{root}/a", {"c.txt": "c", "d.txt": "d"})
  assert sorted(files.names(f"{root}/a")) == ["b.txt", "c.txt", "d.txt"]
  assert files.is_dir(root)
  assert not files.is_file(root)
  assert files.is_file(f"{root}/a/b.txt")
  assert files.read_bytes(f"{root}/a/b.txt", 4) == b"text"
  with pytest.raises(OSError, match="larger than 3 bytes"):
    files.read_bytes(f"{root}/a/b.txt", 3)
  assert files.file_sha256(f"{root}/a/b.txt") == files.sha256(b"text")
  (path,) = files.path(f"{root}/a").glob("b.*")
  assert (path.name, path.suffix, str(path)) == (
    "b.txt",
    ".txt",
    f"{root}/a/b.txt",
  )
  assert path.with_name("c.txt").read_text() == "c"
  assert list(files.path(root).rglob("b.*")) == [path]
  files.remove(f"{root}/a/b.txt")
  files.remove(f"{root}/a/b.txt")
  files.remove(f"{root}/a")
  assert not files.exists(root)


def test_ranges(bucket):
  url = f"{bucket.folder()}/large"
  data = bytes(range(256)) * 20_000
  files.write_bytes(url, data)
  before = bucket.proxy.bytes_read()
  with files.open_unbuffered(url) as file:
    file.seek(1_000_000)
    assert file.read(1_000) == data[1_000_000:1_001_000]
  assert bucket.proxy.bytes_read() - before < 4_000
  with files.open_file(url) as file:
    assert files.size_of(file) == len(data)
    assert file.read() == data
  lines = b"".join(b"%d\n" % number for number in range(100_000))
  files.write_bytes(url, lines)
  asked = len(bucket.proxy.requests)
  with files.open_file(url) as file:
    assert list(file) == lines.splitlines(keepends=True)
  assert len(bucket.proxy.requests) - asked < 10
  files.write_bytes(url, b"")
  with files.open_file(url) as file:
    assert file.read() == b""


def test_an_object_is_asked_once_for_its_size(bucket):
  """Answers that nobody waits for would be counted in the next measure."""
  folder = bucket.folder()
  files.write_bytes(f"{folder}/three", b"one")
  asked = len(bucket.proxy.requests)
  assert files.size(f"{folder}/three") == 3
  first = files.written_state(f"{folder}/three")
  assert len(bucket.proxy.requests) - asked == 2
  files.write_bytes(f"{folder}/three", b"two")
  assert files.written_state(f"{folder}/three") != first
  with pytest.raises(IsADirectoryError):
    files.size(folder)
  with pytest.raises(FileNotFoundError):
    files.size(f"{folder}/four")


def test_a_folder_is_there_when_its_last_file_is(bucket, monkeypatch):
  url = f"{bucket.folder()}/thing"
  changes = []
  for name in ("put_file", "delete"):
    operation = getattr(object_store, name)

    def noted(path, *rest, name=name, operation=operation):
      changes.append((name, path.name))
      operation(path, *rest)

    monkeypatch.setattr(object_store, name, noted)

  def write(text):
    with files.replacing(url, "manifest") as temporary:
      pathlib.Path(temporary).mkdir()
      for name in ("a", "manifest", "z"):
        pathlib.Path(temporary, name).write_text(text)

  write("old")
  assert changes[-1] == ("put_file", "manifest")
  changes.clear()
  write("new")
  assert changes[0] == ("delete", "manifest")
  assert changes[-1] == ("put_file", "manifest")
  assert set(get_tree(url).values()) == {b"new"}
  assert files.is_committed(url, "manifest")
  files.remove(f"{url}/manifest")
  assert not files.is_committed(url, "manifest")


def test_a_file_that_grows_by_pieces(bucket):
  url = f"{bucket.folder()}/grows"
  growing = Growing(url)
  with growing.open() as file:
    assert file.read() == b""
  growing.truncate(0)
  for piece in (b"one\n", b"two\n", b"three\n"):
    growing.append(piece)
  again = Growing(url)
  with again.open() as file:
    assert file.read() == b"one\ntwo\nthree\n"
  files.write_bytes(files.path(url) / f"{99:015d}", b"behind a gap")
  again.truncate(6)
  again.append(b"2")
  assert len(get_tree(url)) == 3
  with Growing(url).open() as file:
    assert file.read() == b"one\ntw2"
  again.move(f"{url}.whole")
  assert set(get_tree(files.path(url).parent)) == {"grows.whole"}
  assert files.path(f"{url}.whole").read_bytes() == b"one\ntw2"


def test_lines_and_mirrors_are_put_when_asked_to(bucket):
  url = f"{bucket.folder()}/log"
  files.write_bytes(url, b"old\n")
  log = Appended(url)
  log.append(b"new\n")
  assert files.path(url).read_bytes() == b"old\n"
  log.put()
  assert files.path(url).read_bytes() == b"old\nnew\n"
  mirror = Mirrored(f"{url}s")
  (mirror.local / "run").mkdir()
  (mirror.local / "run" / "events").write_text("1")
  mirror.put()
  assert get_tree(f"{url}s") == {"run/events": b"1"}
  (mirror.local / "run" / "events").write_text("12")
  mirror.close()
  assert get_tree(f"{url}s") == {"run/events": b"12"}
  assert not mirror.local.exists()


def test_only_one_creates_an_object(bucket):
  url = f"{bucket.folder()}/one"
  won = []

  def create(number):
    try:
      files.create(url, b"%d" % number)
      won.append(number)
    except FileExistsError:
      pass

  threads = [threading.Thread(target=create, args=(k,)) for k in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert files.path(url).read_bytes() == b"%d" % won[0]
  assert len(won) == 1
  files.create(url, b"%d" % won[0])  # our own, of which the answer was lost


SCRIPT = """
import sys, time
from prompt_tuning.core import sole_writer
sole_writer.SIGN = 0.05
with sole_writer.hold(sys.argv[1], "MODEL_DIR"):
  print("held", flush=True)
  time.sleep(600)
"""


def test_two_writers_in_one_folder(gs, monkeypatch):
  """The living one is named; what a killed one left is taken at once."""
  monkeypatch.setattr(sole_writer, "WATCH", 0.5)
  monkeypatch.setattr(sole_writer, "SIGN", 0.1)
  monkeypatch.setattr(sole_writer, "_SETTLED_S", 0.1)
  folder = gs.folder()
  command = [sys.executable, "-c", SCRIPT, folder]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
    assert process.stdout.readline() == "held\n"
    who = f"MODEL_DIR {folder} is in use: process {process.pid} on host"
    with (
      pytest.raises(ValueError, match=re.escape(who)),
      sole_writer.hold(folder, "MODEL_DIR"),
    ):
      pass
    process.send_signal(signal.SIGKILL)
  path = files.path(folder) / sole_writer.FILE
  assert path.exists()
  with sole_writer.hold(folder, "MODEL_DIR"):
    sole_writer.insist(folder)
    with sole_writer.hold(folder, "MODEL_DIR"):
      pass
    time.sleep(0.3)  # of which signs of life tell
    there = json.loads(path.read_bytes())
    assert there["signs"] > 0
    elsewhere = {**there, "host": "elsewhere", "machine": "another"}
    files.write_text(path, json.dumps(elsewhere))
    with pytest.raises(ValueError, match="on host elsewhere took over"):
      sole_writer.insist(folder)
    time.sleep(0.3)
    assert json.loads(path.read_bytes()) == elsewhere
  # One elsewhere that gives no sign of life is watched first.
  with sole_writer.hold(folder, "MODEL_DIR"):
    sole_writer.insist(folder)
  assert not path.exists()


def test_one_request_in_five_fails(bucket):
  folder = bucket.folder()
  with bucket.proxy.failing(5):
    for number in range(4):
      files.write_text(f"{folder}/{number}", "text")
    assert sorted(files.names(folder)) == ["0", "1", "2", "3"]
    assert files.file_sha256(f"{folder}/3") == files.sha256(b"text")


def test_servers_that_stop_for_a_while(gs, s3):
  """Ten seconds, and less where the library itself waits longer."""

  def write(bucket, seconds):
    with bucket.proxy.down():
      time.sleep(seconds)

  folders = {gs: gs.folder(), s3: s3.folder()}
  threads = [
    threading.Thread(target=write, args=p) for p in ((gs, 2), (s3, 10))
  ]
  for thread in threads:
    thread.start()
  time.sleep(0.1)
  for bucket, folder in folders.items():
    files.write_text(f"{folder}/object", bucket.url)
  for thread in threads:
    thread.join()
  for bucket, folder in folders.items():
    assert files.path(f"{folder}/object").read_text() == bucket.url


def test_a_server_that_stays_away_is_one_line(s3, monkeypatch):
  monkeypatch.setattr(object_store, "PATIENCE_S", 1)
  with (
    s3.proxy.down(),
    pytest.raises(files.StoreError, match="failed for 1 seconds") as error,
  ):
    files.write_text(f"{s3.folder()}/object", "text")
  assert "run the same command again" in str(error.value)
  assert "\n" not in str(error.value)


REFUSALS = {
  "rights": (
    403,
    "AccessDenied",
    "Access denied.",
    "do not allow it .*owner for",
  ),
  "clock": (
    *(403, "RequestTimeTooSkewed"),
    "The difference between the request time and the current time is too large",
    "clock is off .*timedatectl|wrong clock",
  ),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_what_no_patience_helps_with_says_what_to_do(kind, bucket):
  status, code, text, expected = REFUSALS[kind]
  body = json.dumps({"error": {"code": status, "message": text}}).encode()
  if bucket.url.startswith("s3"):
    body = (
      f"<Error><Code>{code}</Code><Message>{text}</Message></Error>".encode()
    )
  folder = bucket.folder()
  with bucket.proxy.refusing(status, body):
    for change in (
      lambda: files.ensure_writable(folder, "MODEL_DIR"),
      lambda: files.path(f"{folder}/object").read_bytes(),
    ):
      with pytest.raises((OSError, ValueError), match=expected) as error:
        change()
      assert "\n" not in str(error.value)


def test_no_credentials(gs, caplog):
  body = b'{"error": {"code": 401, "message": "Anonymous caller"}}'
  with (
    gs.proxy.refusing(401, body),
    pytest.raises(files.StoreError, match="gcloud auth application-default"),
  ):
    files.write_text(f"{gs.folder()}/object", "text")
  assert caplog.text == "", "one line, and no stack"


def test_no_credentials_of_amazons(s3, monkeypatch, tmp_path):
  """As on a machine where nobody has ever logged in."""
  for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
    monkeypatch.delenv(name)
  monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
  monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
  monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
  connected = object_store._file_system("s3", os.getpid())
  type(connected).clear_instance_cache()
  object_store._file_system.cache_clear()
  try:
    with pytest.raises(files.StoreError, match="run `aws configure`") as error:
      files.write_text(f"{s3.folder()}/object", "text")
  finally:
    type(connected).clear_instance_cache()
    object_store._file_system.cache_clear()
  assert "\n" not in str(error.value)


def test_a_bucket_that_does_not_exist(bucket):
  url = f"{bucket.url[:2]}://another/run"
  for look in (
    lambda: files.ensure_writable(url, "MODEL_DIR"),
    lambda: files.exists(url),
  ):
    with pytest.raises((OSError, ValueError), match="no bucket 'another'"):
      look()


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_missing_extra_is_named(scheme, monkeypatch):
  find = object_store.importlib.util.find_spec
  absent = {"gcsfs", "s3fs"}
  monkeypatch.setattr(
    object_store.importlib.util,
    "find_spec",
    lambda name: None if name in absent else find(name),
  )
  object_store._file_system.cache_clear()
  extra = {"gs": "gcs", "s3": "s3"}[scheme]
  expected = re.escape(f"pip install 'prompt-tuning[{extra}]'")
  with pytest.raises(files.StoreError, match=expected):
    files.exists(f"{scheme}://bucket/run")
