"""Reading, checking and applying gin: precedence, and every kind of fault."""

import dataclasses
import textwrap

import gin
import pytest

from prompt_tuning.launch import gin_config
from prompt_tuning.launch.gin_config import ConfigError


@dataclasses.dataclass(frozen=True)
class Engine:
  """Something to configure."""

  power: int = 1
  fuel: str = "wind"


@dataclasses.dataclass(frozen=True)
class Ship:
  """Something to configure with parts."""

  engine: Engine
  masts: int = 2


KNOWN = {"tests.Engine": Engine, "tests.Ship": Ship}
for full_name, build in KNOWN.items():
  gin.external_configurable(build, full_name.split(".")[1], module="tests")


@pytest.fixture
def load(tmp_path):
  """Write files by name, load them in that order, and return the ship."""

  def run(bindings=(), order=None, **files):
    for name, text in files.items():
      (tmp_path / f"{name}.gin").write_text(textwrap.dedent(text))
    names = [f"{name}.gin" for name in (order or files)]
    gin_config.load(names, bindings, KNOWN, [str(tmp_path)])
    return gin.get_configurable("tests.Ship")()

  return run


SHIP = """
  POWER = 1
  tests.Ship.engine = @tests.Engine()
  tests.Engine.power = %POWER
"""


def test_what_a_later_file_sets_back_is_mentioned(load, caplog):
  other = "POWER = 2"
  again = 'include "ship.gin"'
  load(ship=SHIP, other=other, again=again)
  (said,) = [record.getMessage() for record in caplog.records]
  assert said.startswith("again.gin sets POWER again (ship.gin:2), so other.g")
  caplog.clear()
  load(order=["ship", "again", "other"])  # as it should be
  load(bindings=["POWER = 1"], order=["ship", "other"])  # on purpose
  assert not caplog.records


def faults(load, *args, **kwargs):
  with pytest.raises(ConfigError) as info:
    load(*args, **kwargs)
  assert gin.config_str() == "", "a faulty configuration is not applied"
  return list(info.value.faults)


def test_later_files_win(load):
  assert load(a=SHIP, b="POWER = 2").engine.power == 2
  assert load(order=["b", "a"], a=SHIP, b="POWER = 2").engine.power == 1


def test_bindings_win_over_files_and_later_over_earlier(load):
  ship = load(["POWER = 3", "tests.Ship.masts = 1", "POWER = 4"], a=SHIP)
  assert ship == Ship(Engine(4), masts=1)


def test_a_file_wins_over_what_it_includes(load):
  text = f"""
  POWER = 5
  {SHIP}
  """
  assert load(order=["b"], a=text, b="include 'a.gin'").engine.power == 1
  ship = load(order=["b"], a=text, b="include 'a.gin'\nPOWER = 7")
  assert ship.engine.power == 7


def test_scopes_and_references(load):
  ship = load(
    a="""
    tests.Ship.engine = @steam/tests.Engine()
    steam/tests.Engine.fuel = "coal"
    tests.Engine.power = 9
    """
  )
  assert ship.engine == Engine(9, "coal")


def test_a_required_macro_takes_no_value_away(load):
  """Whatever the order of files: declaring is not setting."""
  declares = SHIP.replace("POWER = 1", "POWER = %gin.REQUIRED")
  for order in (["a", "b"], ["b", "a"]):
    assert load(order=order, a=declares, b="POWER = 2").engine.power == 2


def test_users_may_declare_macros_and_use_them(load):
  ship = load(a=SHIP, b="MASTS = 4\ntests.Ship.masts = %MASTS")
  assert ship.masts == 4


def test_all_missing_macros_are_in_one_error(load):
  found = faults(
    load,
    a="""
    POWER = %gin.REQUIRED  # horses, such as 40
    FUEL = %gin.REQUIRED
    tests.Engine.power = %POWER
    tests.Engine.fuel = %FUEL
    tests.Ship.masts = %gin.REQUIRED
    """,
  )
  assert found == [
    "POWER needs a value (horses, such as 40): --gin.POWER=...",
    "FUEL needs a value: --gin.FUEL=...",
    "tests.Ship.masts needs a value: --gin.tests.Ship.masts=...",
  ]


@pytest.mark.parametrize(
  ("binding", "message"),
  [
    (
      "POWRE = 2",
      "--gin.POWRE=2: no parsed file declares or uses the macro POWRE. Did you "
      "mean 'POWER'?",
    ),
    ("power = 2", "the macro power. Did you mean 'POWER'?"),
    (
      "CLASS_LABELS = ['a']",
      "the macro CLASS_LABELS. A --gin_file declares it: prompts/"
      "from_class_labels.gin.",
    ),
    (
      "tests.Ship.engine = @tests.Engin()",
      "nothing is called @tests.Engin. Did you mean 'tests.Engine'?",
    ),
    (
      "tests.Sihp.masts = 2",
      "nothing is called tests.Sihp. Did you mean 'tests.Ship'?",
    ),
    (
      "tests.Ship.mast = 2",
      "tests.Ship has no parameter mast. Did you mean 'masts'? Known: engine, "
      "masts.",
    ),
    (
      "tests.Ship.masts = %POWERR",
      "%POWERR has no value. Did you mean 'POWER'",
    ),
    ("POWER = %POWER", "the value of POWER refers to POWER itself."),
    (
      "A0 = (1, 2)\n"
      + "\n".join(f"A{i} = [{9 * f'%A{i - 1}, '}]" for i in range(1, 20))
      + "\nPOWER = %A19",
      "A5 stands for 184,527 values, because macros contain macros;",
    ),
    pytest.param(
      *(f"POWER = {900 * '['}{900 * ']'}", "brackets inside each other"),
      id="brackets",
    ),
    (
      "tests.Engine.fuel = wind/sun",
      "--gin.tests.Engine.fuel=wind/sun: not a value in gin's syntax",
    ),
    (
      "tests.Engine.fuel = wind",
      "Text needs quotes inside: --gin.tests.Engine.fuel=\"'wind'\".",
    ),
    ("include 'c.gin'", "No gin file 'c.gin'. Did you mean 'a.gin'?"),
    (
      "utils.DatasetConfig.batch_size = 4",
      "T5X's utils.DatasetConfig.batch_size is the macro BATCH_SIZE here.",
    ),
  ],
)
def test_each_kind_of_misspelling(load, binding, message):
  (fault,) = faults(load, [binding], a=SHIP)
  assert message in fault


def test_a_misspelling_in_a_file_names_file_and_line(load):
  found = faults(
    load,
    a=SHIP,
    b="""
    # A comment.
    POWRE = 2
    tests.Engine:
      fule = "coal"
    """,
  )
  assert len(found) == 2
  assert found[0].startswith("b.gin:3: no parsed file declares or uses")
  assert found[1].startswith("b.gin:5: tests.Engine has no parameter fule")


def test_all_faults_are_in_one_error(load):
  with pytest.raises(ConfigError, match="has 3 faults:\n") as info:
    load(["POWRE = 1", "tests.Ship.mats = 2"], order=["a", "z"], a=SHIP)
  message = str(info.value)
  assert message.count("Did you mean") == 3  # z.gin is near a.gin


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("POWER = (1", "b.gin: "),
    ("POWER 1", "b.gin: line 1: "),
    ("import no_such_module", "b.gin:1: cannot import no_such_module"),
    ("include 'b.gin'", "b.gin:1: b.gin includes itself."),
    (
      "from __gin__ import dynamic_registration",
      "b.gin: dynamic registration is not supported",
    ),
  ],
)
def test_files_that_cannot_be_read(load, text, message):
  (fault,) = faults(load, a=SHIP, b=text)
  assert message in fault


def test_a_module_of_the_users_adds_configurables(load, tmp_path, monkeypatch):
  (tmp_path / "users_module.py").write_text(
    "import gin\n@gin.configurable\ndef horses(count=3):\n  return count\n"
  )
  monkeypatch.syspath_prepend(tmp_path)
  ship = load(
    a=SHIP,
    b="import users_module\nPOWER = @users_module.horses()\nhorses.count = 6",
  )
  assert ship.engine.power == 6


def test_the_config_written_down_gives_the_same_again(load, tmp_path):
  load(["POWER = 8"], a=SHIP)
  gin_config.write(tmp_path / "run")
  text = (tmp_path / "run" / "config.gin").read_text()
  assert "POWER = 8" in text
  gin_config.load([str(tmp_path / "run" / "config.gin")], [], KNOWN)
  assert gin.get_configurable("tests.Ship")().engine.power == 8
  assert gin_config.config_text() == text


def test_the_operative_config_has_defaults_and_only_what_was_used(
  load, tmp_path
):
  load(a=SHIP + "  other/tests.Engine.power = 3\n")
  gin_config.write(tmp_path)
  text = (tmp_path / "operative_config.gin").read_text()
  assert "Ship.masts = 2" in text
  assert "other/" not in text
  assert "other/" in (tmp_path / "config.gin").read_text()


def test_a_folder_that_cannot_be_written_to(load, tmp_path):
  load(a=SHIP)
  (tmp_path / "file").touch()
  with pytest.raises(NotADirectoryError):
    gin_config.write(tmp_path / "file" / "run")
