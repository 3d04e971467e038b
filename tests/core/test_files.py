"""A name appears whole or not at all, wherever the process is stopped."""

import ast
import errno
import hashlib
import os
import pathlib
import shutil

import pytest

import prompt_tuning
from prompt_tuning.core import files, object_store
from tests.failing_files import Disk, Killed, full_disk

PACKAGE = pathlib.Path(prompt_tuning.__file__).parent


def test_writes_and_replaces(tmp_path):
  path = tmp_path / "a.txt"
  files.write_text(path, "grün\n")
  assert path.read_bytes() == "grün\n".encode()
  files.write_text(path, "two")
  assert path.read_text() == "two"
  assert os.listdir(tmp_path) == ["a.txt"]


def test_names_without_a_folder_are_in_the_working_one(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  files.write_text("a.txt", "a")
  files.move("a.txt", "b.txt")
  assert os.listdir(tmp_path) == ["b.txt"]


def test_names_a_missing_directory(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"nowhere to write a\.txt"):
    files.write_text(tmp_path / "nowhere" / "a.txt", "x")


def test_texts_make_their_folder(tmp_path):
  files.write_texts(tmp_path / "b" / "c", {"d": "1", "e": "2"})
  assert (tmp_path / "b" / "c" / "d").read_text() == "1"
  assert (tmp_path / "b" / "c" / "e").read_text() == "2"


# What writes the content `text` under a name.


def write_file(path, text):
  files.write_text(path, text)


def write_folder(path, text):
  with files.replacing(path) as temporary:
    os.makedirs(os.path.join(temporary, "part"))
    pathlib.Path(temporary, "part", "file").write_text(text)
    pathlib.Path(temporary, "manifest").write_text(text)


def move_file(path, text):
  source = path.with_name("source")
  source.write_text(text)
  files.move(source, path)


def move_folder(path, text):
  source = path.with_name("source")
  write_folder_plainly(source, text)
  files.move(source, path)


def write_folder_plainly(path, text):
  (path / "part").mkdir(parents=True)
  (path / "part" / "file").write_text(text)
  (path / "manifest").write_text(text)


def content(path):
  """Read what a name holds: None, a text, or that of all files of a folder."""
  if not path.exists():
    return None
  if path.is_file():
    return path.read_text()
  names = sorted(str(p.relative_to(path)) for p in path.rglob("*"))
  assert names == ["manifest", "part", "part/file"]
  (text,) = {p.read_text() for p in path.rglob("*") if p.is_file()}
  return text


WRITERS = [write_file, write_folder, move_file, move_folder]


def operations(writer, folder):
  """Count the operations of replacing what is there."""
  with pytest.MonkeyPatch.context() as patch:
    path = folder / "counted" / "target"
    path.parent.mkdir()
    writer(path, "old")
    disk = Disk(patch)
    writer(path, "new")
  return disk.calls


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_at_any_moment(writer, tmp_path):
  """The error names the file; the old or the new one is there, whole."""
  calls = operations(writer, tmp_path)
  for moment, (name, _) in enumerate(calls):
    path = tmp_path / f"{moment}" / "target"
    path.parent.mkdir()
    writer(path, "old")
    with pytest.MonkeyPatch.context() as patch:
      Disk(patch, lambda number, *_, at=moment: number == at and full_disk())
      with pytest.raises(OSError, match="No space left") as caught:
        writer(path, "new")
    assert caught.value.errno == errno.ENOSPC
    assert content(path) in ("old", "new")
    if name in ("_write", "_flush") and writer is write_file:
      assert caught.value.filename == str(path)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_kill_at_any_moment(writer, tmp_path):
  """No name but temporary ones holds a half; the old one is never lost."""
  calls = operations(writer, tmp_path)
  assert {name for name, _ in calls} >= {"_flush", "_rename"}
  for moment in range(len(calls)):
    path = tmp_path / f"{moment}" / "target"
    path.parent.mkdir()
    writer(path, "old")
    with pytest.MonkeyPatch.context() as patch:
      Disk(patch, lambda number, *_, at=moment: number == at and Killed())
      with pytest.raises(Killed):
        writer(path, "new")
    there = content(path)
    if there is None:  # between the two renames of folders
      (old,) = path.parent.glob("target.old.tmp-*")
      there = content(old)
    assert there in ("old", "new")
    others = {p.name for p in path.parent.iterdir()} - {"target", "source"}
    assert all(".tmp-" in name for name in others)
    files.remove_leftovers(path.parent)
    assert not list(path.parent.glob("*.tmp-*"))


@pytest.mark.parametrize("writer", WRITERS)
def test_everything_is_flushed_before_it_has_its_name(writer, tmp_path):
  """And the folder that holds the name after it."""
  calls = operations(writer, tmp_path)
  names = [name for name, _ in calls]
  last = len(names) - 1 - names[::-1].index("_rename")
  before = {path.name for name, path in calls[:last] if name == "_flush"}
  if writer in (write_folder, move_folder):
    assert {"manifest", "file", "part"} <= before
  assert calls[last][1].name in before
  assert calls[last + 1] == ("_flush", tmp_path / "counted")


def test_a_failing_body_leaves_the_old_and_nothing_else(tmp_path):
  def fail():
    with files.replacing(tmp_path / "target") as name:
      pathlib.Path(name).write_text("half")
      raise RuntimeError("halfway")

  (tmp_path / "target").write_text("kept")
  with pytest.raises(RuntimeError, match="halfway"):
    fail()
  assert os.listdir(tmp_path) == ["target"]
  assert (tmp_path / "target").read_text() == "kept"


def test_an_error_of_reading_names_what_was_read(tmp_path):
  with (
    pytest.raises(FileNotFoundError) as caught,
    files.replacing(tmp_path / "target") as name,
  ):
    shutil.copyfile(tmp_path / "absent", name)
  assert caught.value.filename == str(tmp_path / "absent")


@pytest.mark.parametrize("new", ["file", "folder"])
@pytest.mark.parametrize("old", ["file", "folder", "link"])
def test_files_and_folders_take_each_others_place(tmp_path, old, new):
  target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
  elsewhere.mkdir()
  (elsewhere / "thesis.tex").write_text("years of work")
  if old == "file":
    target.write_text("old")
  elif old == "folder":
    shutil.copytree(elsewhere, target)
  else:
    target.symlink_to(elsewhere)
  with files.replacing(target) as name:
    if new == "folder":
      os.mkdir(name)
    else:
      pathlib.Path(name).write_text("new")
  assert not target.is_symlink()
  assert target.is_dir() == (new == "folder")
  assert (elsewhere / "thesis.tex").read_text() == "years of work"
  assert sorted(os.listdir(tmp_path)) == ["elsewhere", "target"]


@pytest.mark.parametrize("there", ["folder", "file"])
def test_created_folders_replace_nothing(tmp_path, there):
  target = tmp_path / "target"

  def create():
    with files.creating(target) as name:
      write_folder_plainly(pathlib.Path(name), "second")

  if there == "folder":
    write_folder_plainly(target, "first")
  else:
    target.write_text("first")
  with pytest.raises(FileExistsError):
    create()
  assert content(target) == "first"
  assert os.listdir(tmp_path) == ["target"]
  files.remove(target)
  create()
  assert content(target) == "second"


def test_appending_goes_on_behind_what_is_left(tmp_path):
  path = tmp_path / "a"
  files.append(path, b"one")
  files.append(path, b"two")
  files.truncate(path, 4)
  files.append(path, b"!")
  files.flush(path)
  assert path.read_bytes() == b"onet!"
  files.truncate(tmp_path / "b", 0)
  assert (tmp_path / "b").read_bytes() == b""


@pytest.mark.parametrize("operation", ["_append", "_flush"])
def test_appending_to_a_full_disk_names_the_file(
  operation, tmp_path, monkeypatch
):
  Disk(monkeypatch, lambda _, name, path: name == operation and full_disk())

  def write():
    files.append(tmp_path / "a", b"one")
    files.flush(tmp_path / "a")

  with pytest.raises(OSError, match=r"No space left .*a'$"):
    write()


def test_removing(tmp_path):
  write_folder_plainly(tmp_path / "folder", "x")
  (tmp_path / "file").write_text("x")
  (tmp_path / "link").symlink_to(tmp_path / "folder")
  for name in ("link", "file", "absent"):
    files.remove(tmp_path / name)
    assert content(tmp_path / "folder") == "x"
  files.remove(tmp_path / "folder")
  assert not os.listdir(tmp_path)


def test_a_half_deleted_folder_has_lost_its_name(tmp_path, monkeypatch):
  write_folder_plainly(tmp_path / "folder", "x")
  Disk(monkeypatch, lambda _, name, path: name == "_delete" and Killed())
  with pytest.raises(Killed):
    files.remove(tmp_path / "folder")
  assert not (tmp_path / "folder").exists()


def test_folders_that_cannot_be_written_to(tmp_path):
  files.ensure_writable(tmp_path / "a" / "b", "MODEL_DIR")
  assert (tmp_path / "a" / "b").is_dir()
  (tmp_path / "file").write_text("")
  with pytest.raises(ValueError, match="MODEL_DIR cannot be written to"):
    files.ensure_writable(tmp_path / "file", "MODEL_DIR")


@pytest.mark.parametrize(
  ("said", "reason"),
  [
    ("{url} cannot be written to: no right. Ask for one.", "no right. Ask for"),
    ("{url}: there is no bucket 'b'. Make it.", "there is no bucket 'b'. Make"),
    ("gs:// needs gcsfs: pip install it", "gs:// needs gcsfs: pip install it"),
  ],
)
def test_a_bucket_is_named_once(said, reason, monkeypatch):
  def put(url, data):
    raise files.StoreError(said.format(url=url))

  monkeypatch.setattr(object_store, "put", put)
  with pytest.raises(ValueError, match="cannot be written to") as error:
    files.ensure_writable("gs://b/run", "MODEL_DIR")
  text = str(error.value)
  assert text.startswith(f"MODEL_DIR gs://b/run cannot be written to: {reason}")
  assert text.count("cannot be written to") == 1
  assert text.endswith(".")
  assert not text.endswith("..")
  assert "tmp-" not in text


@pytest.mark.parametrize(
  "path", ["hdfs://b/x", "./s3://b", "/tmp/../gs://b/x/y"]
)
def test_a_url_is_no_folder_of_this_machine(path, tmp_path, monkeypatch):
  """It would become one called `hdfs:`, which goes with the machine."""
  monkeypatch.chdir(tmp_path)
  for name in (path, os.path.abspath(path)):
    with pytest.raises(OSError, match=r"is a URL.*gs://BUCKET"):
      files.make_folder(name)
  with pytest.raises(ValueError, match=r"MODEL_DIR cannot .* a URL"):
    files.ensure_writable(path, "MODEL_DIR")
  assert os.listdir(tmp_path) == []
  files.make_folder(tmp_path / "a:b" / "12:30" / "c:")
  assert (tmp_path / "a:b" / "12:30" / "c:").is_dir()


def test_hashes(tmp_path):
  data = bytes(range(256)) * 5_000
  (tmp_path / "a").write_bytes(data)
  expected = hashlib.sha256(data).hexdigest()
  assert files.sha256(data) == files.file_sha256(tmp_path / "a") == expected


# Calls that change the disk, or hash files, elsewhere than in `core.files`.
_FORBIDDEN = {
  *("os.replace", "os.rename", "os.remove", "os.unlink", "os.fsync"),
  *("shutil.move", "uuid.uuid4", "hashlib.file_digest"),
}
# In folders that no reader may find: they vanish, or are given a name later.
_ALLOWED = {
  ("data/prepare/writing.py", "shutil.rmtree"),
  ("data/prepare/writing.py", "info.unlink"),
}


def test_nothing_else_renames_deletes_or_hashes_files():
  seen = set()
  for source in sorted(PACKAGE.rglob("*.py")):
    name = source.relative_to(PACKAGE).as_posix()
    if name == "core/files.py":
      continue
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
      if not (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
      ):
        continue
      call, method = ast.unparse(node.func), node.func.attr
      # `str.replace` takes two arguments, `Path.replace` one.
      renames = method == "replace" and (
        len(node.args) + len(node.keywords) == 1
        and not any(isinstance(argument, ast.Starred) for argument in node.args)
      )
      if (
        call in _FORBIDDEN
        or method in ("rmtree", "unlink", "rename", "rmdir")
        or (renames and not call.startswith("dataclasses."))
      ):
        seen.add((name, call))
  assert seen == _ALLOWED


# What knows paths of this machine only; a user's may be in a bucket.
_ONLY_LOCAL = {
  *("pathlib.Path", "open", "os.listdir", "os.scandir", "os.stat"),
  *("os.path.isfile", "os.path.isdir", "os.path.exists"),
  *("os.path.abspath", "os.path.realpath"),
}
# (Module, call) -> what it is of.
_THIS_MACHINES = {
  ("checkpoints/bundle.py", "pathlib.Path"): "what is being written",
  ("checkpoints/delta.py", "pathlib.Path"): "what is being written",
  ("checkpoints/hf.py", "open"): "what is being written",
  ("checkpoints/peft.py", "open"): "what is being written",
  ("checkpoints/prompts.py", "open"): "what is being written",
  ("checkpoints/t5x_writer.py", "open"): "what is being written",
  ("checkpoints/stores.py", "os.path.isdir"): "pipes, which buckets lack",
  ("checkpoints/stores.py", "os.path.exists"): "pipes, which buckets lack",
  ("checkpoints/stores.py", "os.scandir"): "pipes, which buckets lack",
  ("jobs/hub.py", "pathlib.Path"): "the cache of a hub",
  ("jobs/serving.py", "pathlib.Path"): "a copy",
  ("data/cache.py", "pathlib.Path"): "the token cache",
  ("data/cache.py", "os.path.abspath"): "the token cache",
  ("data/corpus.py", "pathlib.Path"): "an ending",
  ("data/installed.py", "pathlib.Path"): "a copy",
  ("data/tables.py", "pathlib.Path"): "an ending",
  ("data/tokenise.py", "pathlib.Path"): "what TFDS downloads",
  ("data/prepare/sources.py", "pathlib.Path"): "a copy",
  ("data/prepare/layouts.py", "pathlib.Path"): "a copy",
  ("data/prepare/writing.py", "pathlib.Path"): "what is being written",
  ("prompting/label_words.py", "pathlib.Path"): "an ending",
  ("prompting/template.py", "pathlib.Path"): "an ending",
}
_WORK = (
  *("checkpoints", "data", "prompting", "tuners", "train", "infer", "jobs"),
  "api.py",
)


def test_paths_that_users_give_may_be_in_buckets():
  seen = set()
  for source in sorted(PACKAGE.rglob("*.py")):
    name = source.relative_to(PACKAGE)
    if name.parts[0] not in _WORK:
      continue
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
      if isinstance(node, ast.Call) and ast.unparse(node.func) in _ONLY_LOCAL:
        seen.add((name.as_posix(), ast.unparse(node.func)))
  why = "make it by `files.path`, or say above what of this machine it is"
  assert seen == set(_THIS_MACHINES), why
