"""What a person reads: this project's messages, once, and nobody else's."""

import logging
import pathlib
import subprocess
import sys

import pytest

from prompt_tuning.launch import console, main

TRAINED = (
  pathlib.Path(__file__).parent.parent
  / "golden"
  / "before_methods"
  / "before_text"
)

logger = logging.getLogger("prompt_tuning.somewhere.below")


def test_a_message_is_shown_once(capsys):
  with console.messages():
    for _ in range(51):
      logger.warning("The table has %d rows.", 4096)
    logger.info("Goes on from step 3.")
    logger.debug("Every parameter.")
  logger.warning("Said when no command runs.")
  assert capsys.readouterr().err == (
    "warning: The table has 4096 rows.\nGoes on from step 3.\n"
  )


def test_details_are_shown_when_asked_for(capsys):
  with console.messages(verbose=True):
    logger.debug("Every parameter.")
  assert capsys.readouterr().err == "Every parameter.\n"


def test_a_handler_of_a_librarys_says_nothing_twice(capsys):
  """Importing one calls `logging.basicConfig`."""
  other = logging.StreamHandler(sys.stdout)
  logging.getLogger().addHandler(other)
  try:
    with console.messages():
      logger.warning("Once.")
  finally:
    logging.getLogger().removeHandler(other)
  shown = capsys.readouterr()
  assert (shown.out, shown.err) == ("", "warning: Once.\n")


def test_a_traceback_stays_with_its_message(capsys):
  with console.messages():
    try:
      raise ValueError("odd")
    except ValueError:
      logger.warning("Not compiled ahead.", exc_info=True)
  shown = capsys.readouterr().err
  assert shown.startswith("warning: Not compiled ahead.\nTraceback")
  assert shown.endswith("ValueError: odd\n")


# Those that are configured by gin, or only parse.
LIGHT = (
  *("train", "compare", "pretrain", "eval", "infer", "score", "plan"),
  *("launch", "inspect", "diff", "convert", "export", "submit", "vocabulary"),
  *("data", "similar"),
)


def test_looking_imports_nothing_that_is_slow(tmp_path):
  assert main.main(["export", str(TRAINED), str(tmp_path)]) == 0
  export = tmp_path / "seed0"
  bundle = TRAINED / "bundles" / "step_00000020"
  paths = [*map(str, (TRAINED, bundle, export, export / "prompt.npy"))]
  program = (
    "import sys\n"
    "from prompt_tuning.launch import main\n"
    "for command in sys.argv[1:]:\n"
    "  try:\n"
    "    main.main([command, '--help'])\n"
    "  except SystemExit:\n"
    "    pass\n"
    "slow = {'jax', 'gin', 'flax', 'rich', 'tqdm'}\n"
    "print('imported:', sorted({'numpy', *slow} & sys.modules.keys()))\n"
    f"for path in {['embedded:ladder_1', *paths]}:\n"
    "  assert not main.main(['inspect', path])\n"
    "slow |= {'optax', 'tensorflow', 'seqio'}\n"
    "print('to look:', sorted(slow & sys.modules.keys()))\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", program, *LIGHT],
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.count("usage: ") == len(LIGHT)
  assert "\nimported: []\n" in done.stdout
  assert done.stdout.endswith("to look: []\n")


@pytest.mark.parametrize("command", LIGHT)
def test_such_commands_exist(command):
  assert command in main.COMMANDS
