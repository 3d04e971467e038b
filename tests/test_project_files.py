"""Files around the package: one version, a Dockerfile whose parts exist, ..."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

import prompt_tuning
from docs.generate import notebooks
from prompt_tuning.machine import accelerators

ROOT = pathlib.Path(__file__).parents[1]


def text(name):
  return (ROOT / name).read_text("utf-8")


def extras():
  block = text("setup.py").split("\nEXTRAS = {\n")[1].split("\n}\n")[0]
  return set(re.findall(r'^  "(\w+)": \[', block, re.M))


def test_there_is_one_version():
  citation = yaml.safe_load(text("CITATION.cff"))
  assert citation["version"] == prompt_tuning.__version__
  assert citation["license"] == "Apache-2.0"
  assert f"## {prompt_tuning.__version__}" in text("CHANGELOG.md")


def test_the_licence_is_what_setup_says():
  assert "Apache License\n                           Version 2.0" in text(
    "LICENSE"
  )
  assert 'license="Apache-2.0"' in text("setup.py")


def test_extras_are_those_that_users_look_for():
  assert extras() >= {
    *("gpu", "tpu", "gcs", "s3", "plan", "notebooks", "docs", "hub"),
  }


def test_constraints_are_the_lower_bounds():
  bounds = dict(
    re.findall(r'"([\w.-]+)(?:\[\w+\])?[>=]=([\d.]+)"', text("setup.py"))
  )
  pins = dict(re.findall(r"^([\w.-]+)==(.*)$", text("constraints.txt"), re.M))
  assert {n: pins.get(n) for n in bounds} == bounds


@pytest.mark.parametrize(
  "name", [p.name for p in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")]
)
def test_issue_templates_are_forms(name):
  form = yaml.safe_load(text(f".github/ISSUE_TEMPLATE/{name}"))
  if name == "config.yml":
    assert form == {"blank_issues_enabled": True}
    return
  assert form["name"]
  assert form["description"]
  ids = [part["id"] for part in form["body"]]
  assert len(set(ids)) == len(ids)
  for part in form["body"]:
    assert part["type"] in ("textarea", "input")
    assert part["attributes"]["label"]


def test_the_dockerfile_copies_what_is_there():
  lines = text("Dockerfile").replace("\\\n", " ").splitlines()
  steps = [shlex.split(line, comments=True) for line in lines]
  steps = [words for words in steps if words]
  assert {words[0] for words in steps} <= {
    *("FROM", "ARG", "WORKDIR", "COPY", "RUN", "ENTRYPOINT", "CMD"),
  }
  assert steps[0][0] == "FROM"
  copied = [w for words in steps if words[0] == "COPY" for w in words[1:-1]]
  let_through = re.findall(r"^!(.*)", text(".dockerignore"), re.M)
  assert sorted(copied) == sorted(let_through)
  for name in copied:
    assert (ROOT / name).exists(), name
  for asked in re.findall(r"EXTRAS=([\w,]+)", text("Dockerfile")):
    assert set(asked.split(",")) <= extras()
  assert ["ENTRYPOINT", "[prompt-tuning]"] in steps


@pytest.mark.parametrize(
  ("extras", "asked"), [("", "."), ("gpu", ".[gpu]"), ("tpu,gcs", ".[tpu,gcs]")]
)
def test_the_dockerfile_asks_pip_for_what_it_takes(extras, asked):
  """A name with empty brackets is none to pip."""
  (words,) = re.findall(r'-c constraints\.txt (".*")', text("Dockerfile"))
  done = subprocess.run(
    ["sh", "-c", f"echo {words}"],
    env={"EXTRAS": extras},
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.strip() == asked


def _docker_answers():
  if shutil.which("docker") is None:
    return False
  asked = subprocess.run(["docker", "info"], capture_output=True, check=False)
  return asked.returncode == 0


@pytest.mark.skipif(
  not _docker_answers(), reason="no Docker daemon: the image is not built"
)
def test_the_image_for_a_cpu_has_the_command():
  tag = "prompt-tuning:test"
  subprocess.run(["docker", "build", "-t", tag, str(ROOT)], check=True)
  done = subprocess.run(
    ["docker", "run", "--rm", tag, "inspect", "embedded:ladder_1"],
    capture_output=True,
    text=True,
    check=True,
  )
  assert "step 9000" in done.stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_a_wheel_holds_nothing_of_an_older_build():
  done = subprocess.run(
    ["make", "--dry-run", "--assume-old=.venv/.package", "wheel"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  removed, built = (
    next(n for n, line in enumerate(done.stdout.splitlines()) if what in line)
    for what in ("build/lib", "pip wheel")
  )
  assert removed < built


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_an_old_python_makes_no_environment(tmp_path):
  """It would stay there, and be used by whoever then names a newer one."""
  old = tmp_path / "python3"
  old.write_text(
    f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c 'import sys; "
    'sys.version_info = (3, 9, 18); exec(sys.argv[2])\' "$@"\n'
  )
  old.chmod(0o755)
  done = subprocess.run(
    ["make", "quickstart", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2
  assert done.stderr.startswith(
    "prompt-tuning needs Python 3.11 or newer, and this is Python 3.9: name a "
    "newer one, such as: make quickstart PYTHON=python3.11\n"
  )
  assert not (tmp_path / "venv").exists()


def test_the_address_of_the_project_is_one_setting():
  """CONTRIBUTING says where; the placeholder stands nowhere else."""
  owner = notebooks.REPOSITORY.partition("/")[0]
  setting = pathlib.Path("docs/generate/notebooks.py")
  assert str(setting) in text("CONTRIBUTING.md")
  listed = subprocess.run(
    ["git", "grep", "--name-only", "--fixed-strings", f"{owner}/prompt-tuning"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  if listed.returncode > 1:
    pytest.skip("no git checkout to search")
  others = set(map(pathlib.Path, listed.stdout.splitlines())) - {setting}
  assert {path.parent for path in others} == {pathlib.Path("notebooks")}


@pytest.fixture
def a_gpu(tmp_path, monkeypatch):
  """A machine with a device file, and a JAX that computes on the CPU."""
  device = tmp_path / "nvidia0"
  device.touch()
  monkeypatch.setattr(
    accelerators, "_DEVICES", {"gpu": (device, "an NVIDIA GPU")}
  )
  monkeypatch.setattr(accelerators, "_said", set())


def test_a_gpu_without_its_jax_is_mentioned_once(a_gpu, monkeypatch, caplog):
  monkeypatch.delenv("JAX_PLATFORMS", raising=False)
  accelerators.mention_unused()
  accelerators.mention_unused()
  (message,) = caplog.messages
  assert "pip install 'prompt-tuning[gpu]'" in message


def test_nothing_is_said_where_the_user_chose(a_gpu, monkeypatch, caplog):
  monkeypatch.setattr(os, "environ", os.environ | {"JAX_PLATFORMS": "cpu"})
  accelerators.mention_unused()
  assert not caplog.messages
