"""The wheel: complete without the checkout that it was built from."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = (
  *("gin", "prompt_tuning"),
  *("setup.py", "pyproject.toml", "README.md", "LICENSE"),
)
LARGEST_MB = 25


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
  """Build the wheel from a copy of the sources and unpack it.

  Without build isolation, so that nothing is fetched; from a copy, so that the
  checkout gets no `build` folder.
  """
  folder = tmp_path_factory.mktemp("wheel")
  source = folder / "source"
  source.mkdir()
  for name in SOURCES:
    path = ROOT / name
    if path.is_dir():
      ignore = shutil.ignore_patterns("__pycache__")
      shutil.copytree(path, source / name, ignore=ignore)
    else:
      shutil.copy(path, source / name)
  subprocess.run(
    [
      *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
      *("--no-build-isolation", "--wheel-dir", str(folder), str(source)),
    ],
    check=True,
    env=os.environ | {"PIP_NO_INDEX": "1"},
  )
  (wheel,) = folder.glob("*.whl")
  assert wheel.stat().st_size < LARGEST_MB * 1e6
  shutil.rmtree(source)
  target = folder / "site"
  with zipfile.ZipFile(wheel) as archive:
    archive.extractall(target)
  return target


def run(installed, *argv):
  """Run Python in a bare folder that knows the wheel's contents only."""
  bare = installed.parent / "bare"
  bare.mkdir(exist_ok=True)
  return subprocess.run(
    [sys.executable, *argv],
    cwd=bare,
    env=os.environ | {"PYTHONPATH": str(installed)},
    capture_output=True,
    text=True,
    check=False,
  )


def test_every_gin_file_is_in_the_wheel(installed):
  ours = {p.relative_to(ROOT / "gin") for p in (ROOT / "gin").rglob("*.gin")}
  folder = installed / "prompt_tuning" / "gin"
  shipped = {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()}
  assert shipped == ours
  assert len(ours) > 50


def test_gin_files_for_t5x_are_in_the_wheel(installed):
  configs = pathlib.Path("prompt_tuning", "t5x", "configs")
  ours = {path.name for path in (ROOT / configs).glob("*.gin")}
  shipped = {path.name for path in (installed / configs).glob("*.gin")}
  assert shipped == ours > {"prompt.gin"}


def test_every_module_is_in_the_wheel(installed):
  ours = {p.relative_to(ROOT) for p in (ROOT / "prompt_tuning").rglob("*.py")}
  shipped = {p.relative_to(installed) for p in installed.rglob("*.py")}
  assert shipped == ours


def test_types_and_licence_are_in_the_wheel(installed):
  assert (installed / "prompt_tuning/py.typed").exists()
  assert [*installed.glob("*.dist-info/licenses/LICENSE")]


def test_no_package_called_gin_is_shipped(installed):
  """It would shadow the library that reads the files."""
  assert not (installed / "gin").exists()


def test_gin_files_are_found_with_no_checkout_around(installed):
  done = run(
    installed,
    *("-m", "prompt_tuning.launch.train", "--dry_run"),
    "--gin_file=models/t5_1_1_base_prompt.gin",
    "--gin_file=runs/paper.gin",
    "--gin.MODEL_DIR='run'",
    "--gin.MIXTURE_OR_TASK_NAME='taskless_super_glue_rte_v102'",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 512, 'targets': 8}",
    "--gin.INITIAL_CHECKPOINT_PATH='checkpoint_1100000'",
  )
  assert done.returncode == 0, done.stderr
  assert "MODEL_SIZE = 'base'" in done.stdout
  program = "from prompt_tuning.launch import gin_files as g; print("
  done = run(installed, "-c", f"{program}g.packaged_root())")
  expected = installed / "prompt_tuning" / "gin"
  assert done.stdout.strip() == str(expected), done.stderr
