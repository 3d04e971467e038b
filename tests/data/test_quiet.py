"""TensorFlow's libraries write to the process's standard error."""

import os

import pytest

from prompt_tuning.data import quiet

NOISE = (
  b"WARNING: All log messages before absl::InitializeLog() is called are "
  b"written to STDERR\n"
  b"I0000 00:00:1795859584.648742    7975 port.cc:153] oneDNN custom "
  b"operations are on.\n"
  b"E0000 00:00:1795859589.154870    7975 cuda_platform.cc:52] failed call to "
  b"cuInit: INTERNAL: CUDA error\n"
)


def test_noise_is_dropped_and_all_else_is_passed_on(capfd):
  with quiet.without_noise():
    os.write(2, NOISE + b"What is wrong, and it matters.\n")
  os.write(2, b"After.\n")
  expected = "What is wrong, and it matters.\nAfter.\n"
  assert capfd.readouterr().err == expected


def test_an_error_loses_nothing(capfd):
  def fail():
    with quiet.without_noise():
      os.write(2, NOISE + b"No such library.\n")
      raise ImportError

  with pytest.raises(ImportError):
    fail()
  assert capfd.readouterr().err == "No such library.\n"


def test_a_process_without_standard_error_has_no_noise(monkeypatch):
  def closed(number):
    raise OSError(9, "Bad file descriptor")

  monkeypatch.setattr(os, "dup", closed)
  ran = []
  with quiet.without_noise():
    ran.append(True)
  assert ran
