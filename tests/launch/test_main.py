"""`prompt-tuning` itself: a reader that leaves, whatever the command."""

import os
import sys

import jax
import pytest

from prompt_tuning.launch import gin_files, main
from prompt_tuning.machine import processes

TRAIN = (
  "--gin_file=models/embedded_prompt.gin",
  "--gin_file=prompts/from_class_labels.gin",
  "--gin_file=runs/prompt_finetune.gin",
  "--gin.MODEL_DIR='unused'",
  "--gin.MIXTURE_OR_TASK_NAME='skill_first'",
  "--gin.TASK_FEATURE_LENGTHS={'inputs': 8, 'targets': 8}",
  "--gin.TRAIN_STEPS=9001",
  "--dry_run",
)
POD = ("tpu_vm", "--name=n", "--zone=z", "--dry_run", "--", *TRAIN[:-1])


@pytest.mark.parametrize(
  "words",
  [
    ["--help"],
    ["inspect", "embedded:ladder_1"],
    ["inspect", "--help"],
    ["data", "list"],
    ["train", *TRAIN],
    ["launch", *POD],
  ],
  ids=lambda words: " ".join(words[:2]),
)
@pytest.mark.parametrize("buffered", [False, True])
def test_a_reader_that_leaves_ends_it_quietly(
  words, buffered, monkeypatch, capfd
):
  """As in `prompt-tuning inspect X | head`."""
  reader, writer = os.pipe()
  os.close(reader)
  pipe = open(writer, "w", buffering=-1 if buffered else 1)  # noqa: SIM115
  monkeypatch.setattr(sys, "stdout", pipe)
  try:
    status = main.main(words)
  except SystemExit as error:  # argparse has written its help
    status = error.code
  monkeypatch.undo()
  pipe.close()  # nothing is left that cannot be written
  assert status in ((0, 141) if "--help" in words[1:] else (141,))
  assert "Error" not in capfd.readouterr().err


def test_other_pipes_are_no_reader(monkeypatch):
  """A host that is gone is an error, not the end of `| head`."""

  def fail(rest):
    raise BrokenPipeError("a host is gone")

  monkeypatch.setattr("prompt_tuning.launch.diff.main", fail)
  reader, writer = os.pipe()
  with open(reader), open(writer, "w") as pipe:
    monkeypatch.setattr(sys, "stdout", pipe)
    with pytest.raises(BrokenPipeError, match="a host is gone"):
      main.main(["diff"])


@pytest.mark.parametrize("words", [["inspect", "x"], ["train", *TRAIN]])
def test_ctrl_c_is_no_traceback(words, monkeypatch, capsys):
  def interrupt(*args):
    raise KeyboardInterrupt

  monkeypatch.setattr("prompt_tuning.launch.inspect.main", interrupt)
  monkeypatch.setattr("prompt_tuning.launch.command.configure", interrupt)
  assert main.main(words) == 130
  assert capsys.readouterr().err.endswith("Interrupted.\n")


@pytest.mark.parametrize(
  ("command", "names", "others"),
  [
    ("train", ("NUM_MICROBATCHES", "PROMPT_LENGTH", "REMAT"), ()),
    ("eval", ("TASK_FEATURE_LENGTHS",), ("REMAT", "NUM_MICROBATCHES")),
  ],
)
def test_what_does_not_fit_into_memory_says_what_to_change(
  command, names, others, monkeypatch, capsys
):
  def exhaust(*args):
    raise jax.errors.JaxRuntimeError(
      "RESOURCE_EXHAUSTED: Out of memory allocating 64 bytes.\n  Buffers: ..."
    )

  monkeypatch.setattr("prompt_tuning.launch.command.configure", exhaust)
  assert main.main([command]) == 2
  said = capsys.readouterr().err
  assert said.count("\n") == 1
  assert said.startswith("error: The program does not fit into memory: lower")
  assert "Out of memory allocating 64 bytes" in said
  assert all(name in said for name in ("BATCH_SIZE", *names))
  assert not any(name in said for name in others)


NOWHERE = ("nowhere", "out.npy")


@pytest.mark.parametrize(
  "argv",
  [
    ("inspect", "nowhere"),
    ("diff", *NOWHERE),
    ("convert", *NOWHERE, "--to", "npy"),
    ("export", *NOWHERE),
    ("similar", *NOWHERE),
    ("submit", *NOWHERE),
    ("report", "nowhere"),
    ("data", "show", "nowhere"),
  ],
  ids=lambda argv: argv[0],
)
def test_every_command_begins_an_error_alike(
  argv, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  assert main.main(argv) == 2
  said = capsys.readouterr()
  assert said.out == ""
  assert said.err.startswith("error: ")
  assert "nowhere" in said.err


def test_another_error_of_a_program_is_not_one_of_memory(monkeypatch):
  def fail(*args):
    raise jax.errors.JaxRuntimeError("INTERNAL: odd")

  monkeypatch.setattr("prompt_tuning.launch.command.configure", fail)
  with pytest.raises(jax.errors.JaxRuntimeError, match="odd"):
    main.main(["train"])


def test_of_several_processes_the_others_hear_why_one_fails(
  monkeypatch, capsys
):
  """And one that fails says whose failure may be the reason."""
  told = []
  monkeypatch.setattr(processes, "settle", lambda _: "process 3 of 4 is gone")
  monkeypatch.setattr(processes, "fail", lambda *error: told.append(error))
  assert main.main(["train", "--gin_file=nowhere.gin"]) == 2
  ((error, status),) = told
  assert status == 2
  assert "nowhere.gin" in error
  said = capsys.readouterr().err
  assert said == f"error: {error}\nerror: process 3 of 4 is gone\n"


@pytest.mark.parametrize(
  ("command", "file"),
  [
    ("train", "prompt_finetune"),
    ("plan", "prompt_finetune"),
    ("compare", "compare"),
    ("pretrain", "pretrain"),
    ("eval", "prompt_eval"),
    ("infer", "prompt_infer"),
    ("score", "prompt_score"),
  ],
)
def test_a_command_without_files_says_which_it_needs(command, file, capsys):
  """It named what Python lacked of `InferJob.__init__`."""
  assert main.main([command]) == 2
  said = capsys.readouterr().err
  assert "Give a model file and a run file, such as" in said
  assert f"{file}.gin" in said
  assert "__init__" not in said
  assert (gin_files.packaged_root() / "runs" / f"{file}.gin").is_file()
