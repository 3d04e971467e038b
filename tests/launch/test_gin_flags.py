"""T5X's flags, and what is said about others."""

import re

import pytest

from prompt_tuning.launch import flags
from prompt_tuning.launch.flags import Distributed, Flags


def parse(*argv):
  return flags.parse("train", argv, "Train.")


def test_nothing_given():
  assert parse() == Flags()


def test_files_and_bindings_keep_their_order():
  given = parse(
    "--gin.A=1",
    "--gin_file=one.gin",
    "--gin_bindings=B = 2",
    "--gin_file",
    "two.gin",
    "--gin.a/b.c=[1, 2]",
  )
  assert given.gin_files == ("one.gin", "two.gin")
  assert given.gin_bindings == ("A = 1", "B = 2", "a/b.c = [1, 2]")


def test_a_value_may_hold_equals_signs_and_blanks():
  (binding,) = parse("--gin.TEXT='a = b'").gin_bindings
  assert binding == "TEXT = 'a = b'"


def test_data_flags():
  given = parse(
    "--gin_search_paths=a,b/c,",
    "--tfds_data_dir=",
    "--seqio_additional_cache_dirs=x,y",
    "--dry_run",
  )
  assert given.gin_search_paths == ("a", "b/c")
  assert given.tfds_data_dir is None
  assert given.seqio_additional_cache_dirs == ("x", "y")
  assert flags.parse("infer", ["--shard_id=2"], "Infer.").shard_id == 2
  assert given.dry_run


def test_hosts():
  given = parse(
    "--coordinator_address=host:1234",
    "--process_count=4",
    "--process_index=1",
    "--initialization_timeout=20",
  )
  assert given.distributed == Distributed("host:1234", 4, 1, 20, True)


@pytest.mark.parametrize(
  ("flag", "requested"),
  [
    ("--multiprocess_gpu", True),
    ("--multiprocess_gpu=true", True),
    ("--multiprocess_gpu=False", False),
  ],
)
def test_t5xs_boolean(flag, requested):
  assert parse(flag).distributed.requested is requested


@pytest.mark.parametrize(
  ("argument", "message"),
  [
    ("--gin_flie=x", "'--gin_flie=x'. Did you mean '--gin_file'?"),
    ("--tfds_datadir=x", "Did you mean '--tfds_data_dir'?"),
    ("--gin_fil=x", "Did you mean '--gin_file'?"),  # no abbreviations
    ("--gin.BATCH_SIZE", "--gin.BATCH_SIZE: expected --gin.NAME=value"),
    ("--process_count=many", "invalid int value: 'many'"),
    ("--multiprocess_gpu=perhaps", "expected true or false, got 'perhaps'"),
  ],
)
def test_bad_arguments(argument, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    parse(argument)


def test_help_explains_quotes(capsys):
  with pytest.raises(SystemExit):
    parse("--help")
  assert "--gin.MODEL_DIR=\"'runs/1'\"" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("command", "flag", "others"),
  [
    (
      "pretrain",
      "--tfds_data_dir=d",
      "train, sweep, compare, eval, infer, score",
    ),
    ("train", "--shard_id=1", "infer, score"),
    ("infer", "--process_count=2", "train, sweep, pretrain, compare, eval"),
    ("score", "--multiprocess_gpu", "train, sweep, pretrain, compare, eval"),
  ],
)
def test_a_command_has_the_flags_that_it_uses(command, flag, others, capsys):
  with pytest.raises(ValueError, match=f"It is a flag of {others}"):
    flags.parse(command, [flag], "")
  with pytest.raises(SystemExit):
    flags.parse(command, ["--help"], "")
  assert flag.partition("=")[0] not in capsys.readouterr().out


def test_plan_takes_the_line_of_train():
  words = ("--tfds_data_dir=d", "--process_count=2", "--gin_file=a.gin")
  assert flags.parse("plan", words, "") == parse(*words)


@pytest.mark.parametrize("absl", ["-v", "--log_dir", "--verbosity"])
def test_a_flag_of_absl_without_value_takes_no_other(absl):
  given = parse(absl, "--gin_file=a.gin", "--gin.A=1")
  assert given == parse("--gin_file=a.gin", "--gin.A=1")


def test_flags_of_absl_change_nothing():
  given = parse(
    *("--alsologtostderr", "--nologtostderr", "--verbosity=1", "-v", "-1"),
    *("--log_dir", "logs", "--stderrthreshold=info", "--gin_file=a.gin"),
  )
  assert given == Flags(gin_files=("a.gin",))
  with pytest.raises(ValueError, match="Unknown argument '--nolog_dir'"):
    parse("--nolog_dir")
