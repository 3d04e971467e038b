"""Outputs killed anywhere, and continued, equal undisturbed ones."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_tuning.infer.outputs import InputsDigest, Output, Shard
from tests.failing_files import Disk, full_disk

SETTINGS = {"model": "m", "run": "r", "seed": 0}


class Killed(BaseException):
  """Stands for a kill while lines are computed."""


class Compute:
  """Predicts the number, and notes what it was asked for."""

  def __init__(self, kill_at=None):
    self.asked = []
    self.kill_at = kill_at

  def __call__(self, numbers, examples):
    if self.kill_at in numbers:
      raise Killed
    self.asked += numbers
    # A line depends on its chunk, as rounding does on the batch.
    return [
      {"prediction": f"é{n} {example['inputs_pretokenized']} {numbers[0]}"}
      for n, example in zip(numbers, examples, strict=True)
    ]


def examples(count):
  return [{"inputs_pretokenized": f"text ü {i}"} for i in range(count)]


def output(folder, chunk_size=3, **settings):
  return Output(
    folder, "task", "predict", SETTINGS | settings, chunk_size=chunk_size
  )


@pytest.fixture
def undisturbed(tmp_path):
  """Ten lines in chunks of three."""
  path = output(tmp_path / "undisturbed").write(examples(10), Compute())
  return path.read_bytes()


def test_names_and_lines_are_t5xs(tmp_path):
  path = output(tmp_path / "new" / "folder").write(examples(2), Compute())
  assert path.name == "task-predict.jsonl-00000-of-00001"
  assert {p.name for p in path.parent.iterdir()} == {
    "task-predict.jsonl-00000-of-00001",
    "task-predict.jsonl-00000-of-00001.COMPLETED",
  }
  assert path.read_text() == (
    '{"inputs": {"inputs_pretokenized": "text \\u00fc 0"}, '
    '"prediction": "\\u00e90 text \\u00fc 0 0"}\n'
    '{"inputs": {"inputs_pretokenized": "text \\u00fc 1"}, '
    '"prediction": "\\u00e91 text \\u00fc 1 0"}\n'
  )


def test_a_file_cut_at_every_byte_is_completed(
  tmp_path, undisturbed, monkeypatch
):
  """Whatever a kill left of the file: whole chunks stay, the rest is redone."""
  monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # slow, and
  # without effect on what this process reads.
  ends = [i + 1 for i, byte in enumerate(undisturbed) if byte == ord("\n")]
  for cut in range(len(undisturbed) + 1):
    shutil.rmtree(tmp_path / "cut", ignore_errors=True)
    killed = output(tmp_path / "cut")
    with pytest.raises(Killed):
      killed.write(examples(10), Compute(kill_at=3))
    partial = killed.path.with_name(killed.path.name + ".partial")
    partial.write_bytes(undisturbed[:cut])
    compute = Compute()
    path = output(tmp_path / "cut").write(examples(10), compute)
    assert path.read_bytes() == undisturbed
    lines = sum(end <= cut for end in ends)
    whole = 10 if lines == 10 else lines // 3 * 3
    assert compute.asked == list(range(whole, 10))
    assert not partial.exists()


@given(
  st.integers(0, 12),
  st.integers(1, 5),
  st.lists(st.integers(0, 11), max_size=4),
  st.data(),
)
def test_any_number_of_kills(count, chunk_size, kills, data):
  """Kills while computing, each leaving any part of a chunk's lines behind."""
  with tempfile.TemporaryDirectory() as name:
    root = pathlib.Path(name)
    expected = output(root / "a", chunk_size).write(examples(count), Compute())
    killed = output(root / "b", chunk_size)
    partial = killed.path.with_name(killed.path.name + ".partial")
    for kill in kills:
      try:
        killed.write(examples(count), Compute(kill_at=kill))
      except Killed:
        if not partial.exists():  # no lines yet
          assert not list(partial.parent.iterdir())
          continue
        written = partial.read_bytes()
        assert expected.read_bytes().startswith(written)
        extra = data.draw(st.integers(0, 200))
        torn = expected.read_bytes()[: len(written) + extra]
        partial.write_bytes(torn)
    path = killed.write(examples(count), Compute())
    assert path.read_bytes() == expected.read_bytes()
    assert killed.completed.read_bytes() == (
      output(root / "a", chunk_size).completed.read_bytes()
    )


def test_damage_in_the_middle_is_redone(tmp_path, undisturbed):
  killed = output(tmp_path / "b")
  with pytest.raises(Killed):
    killed.write(examples(10), Compute(kill_at=9))
  partial = killed.path.with_name(killed.path.name + ".partial")
  content = bytearray(partial.read_bytes())
  start = content.index(b"text", 600)
  content[start - 30 : start + 30] = bytes(60)  # zeros, as after a power cut
  partial.write_bytes(content)
  compute = Compute()
  path = killed.write(examples(10), compute)
  assert path.read_bytes() == undisturbed
  assert 0 < len(compute.asked) < 10


@pytest.mark.parametrize("moment", ["settings", "lines", "renamed"])
def test_kills_between_the_steps(moment, tmp_path, undisturbed):
  """After the settings; after the last line; after the file's renaming."""
  killed = output(tmp_path / "b")
  with pytest.raises(Killed):
    killed.write(examples(10), Compute(kill_at=3))
  partial = killed.path.with_name(killed.path.name + ".partial")
  if moment == "settings":
    partial.unlink()
  if moment == "lines":
    partial.write_bytes(undisturbed)
  if moment == "renamed":
    partial.unlink()
    killed.path.write_bytes(undisturbed)
  compute = Compute()
  assert killed.write(examples(10), compute).read_bytes() == undisturbed
  assert len(compute.asked) == (10 if moment == "settings" else 0)
  assert {p.name for p in killed.path.parent.iterdir()} == {
    killed.path.name,
    killed.completed.name,
  }


_SCRIPT = """
import os, signal, sys
from prompt_tuning.infer.outputs import Output
from tests.failing_files import Disk, full_disk

def compute(numbers, examples):
  if 6 in numbers and sys.argv[2] == "die":
    os.kill(os.getpid(), signal.SIGKILL)
  return [{"prediction": str(n)} for n in numbers]

examples = ({"inputs_pretokenized": f"text {i}"} for i in range(10))
Output(sys.argv[1], "t", "predict", {}, chunk_size=3).write(examples, compute)
"""


def test_a_process_killed_for_good(tmp_path):
  def run(folder, how):
    command = [sys.executable, "-c", _SCRIPT, str(folder), how]
    return subprocess.run(command, check=False).returncode

  assert run(tmp_path / "a", "live") == 0
  assert run(tmp_path / "b", "die") == -signal.SIGKILL
  name = "t-predict.jsonl-00000-of-00001"
  assert (tmp_path / "b" / f"{name}.partial").read_text().count("\n") == 6
  assert run(tmp_path / "b", "live") == 0
  assert (tmp_path / "b" / name).read_bytes() == (
    tmp_path / "a" / name
  ).read_bytes()


def test_a_complete_file_is_left_alone(tmp_path, undisturbed):
  done = output(tmp_path / "undisturbed")
  compute = Compute()
  done.write(examples(10), compute)
  assert done.path.read_bytes() == undisturbed
  assert compute.asked == []


@given(st.integers(0, 20), st.integers(1, 4))
def test_shards_divide_the_input(count, shards):
  with tempfile.TemporaryDirectory() as folder:
    found = {}
    for index in range(shards):
      compute = Compute()
      part = Output(
        folder, "t", "predict", {}, Shard(index, shards), chunk_size=2
      )
      path = part.write(iter(examples(count)), compute)
      assert path.name.endswith(f"-{index:05}-of-{shards:05}")
      lines = [json.loads(line) for line in path.read_text().splitlines()]
      assert compute.asked == list(range(index, count, shards))
      for number, line in zip(compute.asked, lines, strict=True):
        assert line["inputs"] == examples(count)[number]
        found[number] = line
    assert sorted(found) == list(range(count))


def begun(folder):
  """Leave a file of six lines behind."""
  with pytest.raises(Killed):
    output(folder).write(examples(10), Compute(kill_at=6))
  return folder


@pytest.mark.parametrize("complete", [False, True])
def test_other_settings_are_refused(complete, tmp_path):
  folder = begun(tmp_path)
  if complete:
    output(folder).write(examples(10), Compute())
  with pytest.raises(ValueError, match="seed: 0 there, 1 here"):
    output(folder, seed=1).write(examples(10), Compute())
  with pytest.raises(ValueError, match="chunk_size: 3 there, 4 here"):
    output(folder, chunk_size=4).write(examples(10), Compute())
  output(folder).write(examples(10), Compute())  # nothing was lost


def test_nothing_is_left_of_a_job_that_fails_at_once(tmp_path):
  def tables():
    yield from examples(2)
    raise ValueError("line 3 is damaged")

  for inputs, compute, error in (
    (examples(10), Compute(kill_at=0), Killed),
    (tables(), Compute(), ValueError),
  ):
    with pytest.raises(error):
      output(tmp_path).write(inputs, compute)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("partial", [False, True])
def test_what_was_begun_and_has_no_lines_is_begun_anew(partial, tmp_path):
  """As older versions, and kills, leave it: there is nothing to lose."""
  done = output(tmp_path, seed=1)
  for what, text in (("settings", '{"seed": 0}'), ("partial", "")):
    if partial or what == "settings":
      done.path.with_name(f"{done.path.name}.{what}").write_text(text)
  assert done.write(examples(2), Compute()).read_text().count("\n") == 2
  assert json.loads(done.completed.read_text())["seed"] == 1


def test_another_input_is_refused(tmp_path):
  other = examples(10)
  other[4] = {"inputs_pretokenized": "another"}
  with pytest.raises(ValueError, match="another input at number 4"):
    output(begun(tmp_path / "a")).write(other, Compute())
  with pytest.raises(ValueError, match="more lines than the input"):
    output(begun(tmp_path / "b")).write(examples(3), Compute())


@pytest.mark.parametrize("marker", ["as written", "of an older version"])
def test_a_complete_file_is_no_answer_to_another_input(marker, tmp_path):
  """Changed, longer and shorter inputs; the same one again is no work."""
  done = output(tmp_path)
  lines = done.write(examples(10), Compute()).read_bytes()
  told = json.loads(done.completed.read_text())
  assert told["inputs"]["count"] == 10
  if marker != "as written":
    del told["inputs"]
    done.completed.write_text(json.dumps(told))
  changed = examples(10)
  changed[7] = {"inputs_pretokenized": "text ü 70"}
  for other, why in (
    (changed, "another input at number 7"),
    (examples(9), "more lines than the input"),
    (examples(12), "no answer, or a damaged one, to input number 10"),
  ):
    compute = Compute()
    with pytest.raises(ValueError, match=why):
      output(tmp_path).write(other, compute)
    assert compute.asked == []
  assert output(tmp_path).write(iter(examples(10)), Compute()) == done.path
  assert done.path.read_bytes() == lines


def test_the_digest_is_of_the_inputs(tmp_path):
  """Other inputs, another one; wherever a kill came, the same one."""
  digests = {}
  for name, count in (("a", 4), ("b", 5)):
    done = output(tmp_path / name)
    done.write(examples(count), Compute())
    digests[name] = json.loads(done.completed.read_text())["inputs"]
  assert digests["a"] == InputsDigest(examples(4)).value
  assert digests["a"]["sha256"] != digests["b"]["sha256"]
  killed = begun(tmp_path / "c")
  done = output(killed)
  done.write(examples(10), Compute())
  told = json.loads(done.completed.read_text())
  assert told["inputs"] == InputsDigest(examples(10)).value


def test_a_kill_between_the_marker_and_the_end(tmp_path):
  done = output(tmp_path)
  done.write(examples(3), Compute())
  left = done.path.with_name(f"{done.path.name}.settings")
  left.write_text(done.completed.read_text())
  done.write(examples(3), Compute())
  assert not left.exists()


def test_two_processes_do_not_write_one_file(tmp_path):
  """The second is refused while the first one writes; shards are apart."""
  refused = []

  class Meanwhile(Compute):
    def __call__(self, numbers, examples):
      def second():
        try:
          output(tmp_path).write([], Compute())
        except ValueError as error:
          refused.append(str(error))

      if not refused:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        part = Output(tmp_path, "task", "predict", {}, Shard(0, 2))
        part.write([], Compute())
      return super().__call__(numbers, examples)

  output(tmp_path).write(examples(4), Meanwhile())
  (message,) = refused
  assert "INFER_OUTPUT_DIR" in message
  assert "is in use" in message


@pytest.mark.parametrize("suffix", ["", ".partial"])
def test_files_of_unknown_origin_are_kept(suffix, tmp_path):
  path = tmp_path / f"task-predict.jsonl-00000-of-00001{suffix}"
  path.write_text("precious\n")
  with pytest.raises(ValueError, match="no file says with which settings"):
    output(tmp_path).write(examples(2), Compute())
  assert path.read_text() == "precious\n"


def test_t5xs_empty_marker_is_not_ours(tmp_path):
  marker = tmp_path / "task-predict.jsonl-00000-of-00001.COMPLETED"
  marker.touch()
  with pytest.raises(ValueError, match="has other settings"):
    output(tmp_path).write(examples(2), Compute())


def test_no_space_left_loses_nothing(tmp_path, undisturbed, monkeypatch):
  begun(tmp_path / "b")
  with monkeypatch.context() as patch:
    Disk(patch, lambda _, name, path: name == "_flush" and full_disk())
    with pytest.raises(OSError, match="No space"):
      output(tmp_path / "b").write(examples(10), Compute())
  path = output(tmp_path / "b").write(examples(10), Compute())
  assert path.read_bytes() == undisturbed


def test_settings_out_of_range(tmp_path):
  with pytest.raises(ValueError, match="Shard 2 of 2 does not exist"):
    Shard(2, 2)
  with pytest.raises(ValueError, match="chunk of 0"):
    output(tmp_path, chunk_size=0)
