"""The launchers print and run the right words, and those arrive as they are."""

import contextlib
import fcntl
import os
import pathlib
import pickle
import re
import shlex
import signal
import stat
import subprocess
import sys
import threading
import time
import types

import pytest

from prompt_tuning.cluster import gke, program, slurm, slurm_task, tpu_vm
from prompt_tuning.launch import command, flags, launch

ROOT = pathlib.Path(__file__).parents[2]

# What a shell, ssh, YAML or Kubernetes could mistake for its own.
ARGS = [
  "--gin_file=models/t5_1_1_base_prompt.gin",
  "--gin.MODEL_DIR='gs://x/y  z'",
  "--gin.TASK_FEATURE_LENGTHS={'inputs': 512, \"targets\": 8}",
  '--gin.NAME="it\'s $HOME $(id) $$ `id` \\ \\n * ~ # ; & | > % ! {a,b} é"',
  "--gin_search_paths=",
  "--tfds_data_dir",
  "a b",
]
JOINED = [*ARGS, "--multiprocess_gpu"]
GKE = "--cluster=c --workload=w --tpu_type=v5litepod-16 --docker_image=i:1"
TPU = "--name=n --zone=z"
KIND = "--accelerator_type=v5litepod-16 --runtime_version=v2-alpha-tpuv5-lite"
EVERY_STEP = "create install run watch logs delete"
SLURM = "--timeout_min=60 --nodes=2 --gpus_per_node=4"

# Writes its name, its words, and one variable; then does what it is told to.
FAKE = """#!/bin/bash
n=$(ls "$RECORDS" | wc -l)
printf '%s\\0' "${0##*/}" "$@" > "$RECORDS/$n.part"
printf '%s' "$VARIABLE" > "$RECORDS/../variable"
mv "$RECORDS/$n.part" "$RECORDS/$n"
"""


class Fakes:
  """Executables that record what they are called with."""

  def __init__(self, folder: pathlib.Path):
    self.bin, self.records = folder / "bin", folder / "records"
    self.bin.mkdir()
    self.records.mkdir()

  def add(self, name: str, does: str = "") -> pathlib.Path:
    path = self.bin / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(FAKE + does)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path

  def calls(self) -> list[list[str]]:
    found = sorted(self.records.glob("[0-9]*"), key=lambda p: int(p.stem))
    return [p.read_text().split("\0")[:-1] for p in found]

  def only_call(self, within_s: float = 20) -> list[str]:
    deadline = time.monotonic() + within_s
    while not list(self.records.glob("*")) and time.monotonic() < deadline:
      time.sleep(0.02)
    time.sleep(0.05)
    (call,) = self.calls()
    return call


@pytest.fixture
def fakes(tmp_path, monkeypatch):
  made = Fakes(tmp_path)
  monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
  monkeypatch.setenv("RECORDS", str(made.records))
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  monkeypatch.delenv("VARIABLE", raising=False)
  (tmp_path / "home").mkdir()
  for name in ("gcloud", "xpk", "sbatch", "srun"):
    made.add(name)
  return made


def shell(script, **variables):
  return subprocess.run(
    ["bash", "-c", script],
    env={**os.environ, **variables},
    capture_output=True,
    text=True,
    check=False,
  )


def option(words, name):
  (found,) = [w for w in words if w.startswith(f"--{name}=")]
  return found.partition("=")[2]


def called(module, text, args=ARGS):
  engine = module.__name__.rpartition(".")[2]
  return launch.main([engine, *shlex.split(text), "--", *args])


# What is printed, is what runs.


@pytest.mark.parametrize(
  ("module", "text"),
  [
    (gke, f"{GKE} --num_slices=2 --env VARIABLE='x y'"),
    (tpu_vm, f"{TPU} --steps install run --package='p @ q' --env A='x y'"),
    (tpu_vm, f"{TPU} {KIND} --steps create run --spot"),
  ],
)
def test_printed_lines_are_the_commands_that_run(fakes, capsys, module, text):
  assert called(module, f"{text} --dry_run") == 0
  printed = capsys.readouterr().out
  assert fakes.calls() == []
  assert shell(printed).returncode == 0
  pasted = fakes.calls()
  assert [shlex.split(line) for line in printed.splitlines()] == pasted
  assert called(module, text) == 0
  assert fakes.calls() == pasted * 2


@pytest.mark.parametrize(
  ("module", "text"),
  [
    (gke, GKE),
    (tpu_vm, f"{TPU} {KIND} --queued --package=p --steps {EVERY_STEP}"),
    (slurm, SLURM),
  ],
)
def test_a_dry_run_needs_no_engine(fakes, capsys, monkeypatch, module, text):
  monkeypatch.setitem(sys.modules, "submitit", None)  # not importable
  assert called(module, f"{text} --dry_run") == 0
  assert fakes.calls() == []
  monkeypatch.setenv("PATH", str(fakes.records))
  assert called(module, f"{text} --dry_run") == 0
  out, err = capsys.readouterr()
  assert "gin_search_paths=" in out
  assert err == ""


@pytest.mark.parametrize(
  ("module", "text", "tool"),
  [
    (gke, GKE, "xpk"),
    (tpu_vm, TPU, "gcloud"),
    (slurm, SLURM, "sbatch"),
  ],
)
def test_a_missing_engine_is_named(
  fakes, capsys, monkeypatch, module, text, tool
):
  monkeypatch.setenv("PATH", str(fakes.records))
  assert called(module, text) == 2
  assert f"error: {tool} is not on PATH" in capsys.readouterr().err


def test_a_failure_ends_the_launch(fakes, capsys):
  fakes.add("gcloud", "exit 3")
  assert called(tpu_vm, f"{TPU} --package=p --steps install run") == 2
  assert len(fakes.calls()) == 1
  assert "gcloud ended with status 3" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("module", "given", "flag"),
  [
    (gke, GKE.replace("--cluster=c", ""), "--cluster"),
    (gke, GKE.replace("--workload=w", ""), "--workload"),
    (gke, GKE.replace("--tpu_type=v5litepod-16", ""), "--tpu_type"),
    (gke, GKE.replace("--docker_image=i:1", ""), "--docker_image"),
    (gke, f"{GKE} --env 1A=2", "--env"),
    (tpu_vm, "--zone=z", "--name"),
    (tpu_vm, "--name=n", "--zone"),
    (tpu_vm, f"{TPU} --run_name='a b'", "--run_name"),
    (slurm, "--nodes=2", "--timeout_min"),
    (slurm, f"{SLURM} --sbatch exclusive", "--sbatch"),
  ],
)
def test_missing_and_bad_flags_are_named(capsys, module, given, flag):
  with pytest.raises(SystemExit) as ended:
    called(module, given)
  assert ended.value.code == 2
  assert flag in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
  ("module", "given", "args", "message"),
  [
    (tpu_vm, f"{TPU} --steps create", [], "create needs --accelerator_type"),
    (tpu_vm, f"{TPU} --steps install", [], "install needs --package"),
    (tpu_vm, f"{TPU} --steps install --package=.", [], "is a folder"),
    (tpu_vm, f"{TPU} --steps logs", ARGS, "--steps has no run"),
    (tpu_vm, f"{TPU} --steps run delete", ARGS, "Leave delete out"),
    (tpu_vm, f"{TPU} --steps run watch", ARGS, "watch needs --queued"),
    (tpu_vm, f"{TPU} --queued --steps watch", ARGS, "create needs"),
    (tpu_vm, f"{TPU} --max_restarts=-1", ARGS, "--max_restarts -1"),
    (
      tpu_vm,
      f"{TPU} {KIND} --package=p --steps delete logs run install create",
      ARGS,
      "Leave delete out",
    ),
    (
      tpu_vm,
      f"{TPU} {KIND} --steps create install run --package=dist/none.whl",
      ARGS,
      "--package=dist/none.whl: no such file",
    ),
    (tpu_vm, TPU, [], "flags of prompt-tuning train after --"),
    (gke, GKE, ["--gin_flie=x"], "--gin_file"),
    (gke, GKE, ["--coordinator_address=h:1"], "Leave out --coordinator"),
    (gke, GKE, ["--gin.A='x\ny'"], "one line"),
    (gke, f"{GKE} --env 'A=\"'", ARGS, "--env"),
    (slurm, SLURM, ["--process_index=0"], "Leave out --coordinator_address"),
  ],
)
def test_what_cannot_work_is_said_before_anything_runs(
  fakes, capsys, module, given, args, message
):
  assert called(module, given, args) == 2
  assert message in capsys.readouterr().err
  assert fakes.calls() == []


def test_the_readme_s_examples_are_command_lines(capsys):
  text = (ROOT / "docs" / "clusters.md").read_text()
  examples = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
  seen = []
  for example in examples:
    tool, name, engine, *argv = shlex.split(example.replace("\\\n", " "))
    if tool == "docker":  # makes the image of the next one
      continue
    assert (tool, name) == ("prompt-tuning", "launch")
    seen.append(engine)
    assert "--dry_run" in argv
    assert launch.main([engine, *argv]) == 0
    _, args = program.split(argv)
    job = command.configure("train", flags.parse("train", args, ""))
    assert job.duration.num_steps(1_100_000) == 30_000
  assert seen == list(launch.ENGINES)
  assert "boolq" in capsys.readouterr().out


# GKE.


def test_xpk_gets_its_flags(fakes):
  text = f"{GKE} --num_slices=2 --project=p --zone=z --priority=high"
  more = "--max_restarts=3 --storage=s --storage=t --env A=b --env C='d e'"
  assert called(gke, f"{text} {more} --program=eval", ["--gin_file=a"]) == 0
  assert fakes.only_call() == [
    "xpk",
    "workload",
    "create",
    "--cluster=c",
    "--workload=w",
    "--tpu-type=v5litepod-16",
    "--num-slices=2",
    "--docker-image=i:1",
    "--project=p",
    "--zone=z",
    "--priority=high",
    "--max-restarts=3",
    # xpk restarts after signals by itself, not when another host is gone.
    "--restart-on-exit-codes=75",
    "--storage=s",
    "--storage=t",
    "--env=A=b",
    "--env=C=d e",
    "--command=prompt-tuning eval --gin_file=a --multiprocess_gpu",
  ]


def kubernetes(script, variables):
  """What Kubernetes makes of a container's command: $$ and $(NAME)."""

  def replace(match):
    if match[0] == "$$":
      return "$"
    return variables.get(match[1], match[0])

  return re.sub(r"\$\$|\$\(([^)]*)\)", replace, script)


def test_the_container_runs_the_words_that_were_given(fakes):
  assert called(gke, GKE) == 0
  command = option(fakes.only_call(), "command")
  fakes.records.joinpath("0").unlink()
  fakes.add("prompt-tuning")
  script = kubernetes(f"({command}) & PID=$!; wait $PID", {"id": "wrong"})
  assert shell(script).stderr == ""
  assert fakes.only_call() == ["prompt-tuning", "train", *JOINED]


def test_a_choice_about_joining_is_kept(fakes):
  assert called(gke, GKE, ["--multiprocess_gpu=false"]) == 0
  command = option(fakes.only_call(), "command")
  assert command == "prompt-tuning train --multiprocess_gpu=false"


def test_what_divides_its_work_does_not_join(fakes, capsys):
  assert called(gke, f"{GKE} --program=infer") == 0
  assert "multiprocess_gpu" not in option(fakes.only_call(), "command")
  line = "--timeout_min=60 --program=infer --dry_run"
  assert called(slurm, line) == 0
  assert "coordinator_address" not in capsys.readouterr().out
  assert called(slurm, f"{line} --nodes=2") == 2
  assert "by NUM_SHARDS and --shard_id" in capsys.readouterr().err


# Cloud TPU VMs.


def gcloud(*words, where=("--zone=z",)):
  return ["gcloud", "compute", "tpus", *words, *where]


@pytest.mark.parametrize(
  ("text", "calls"),
  [
    (
      f"--steps create --project=p {KIND} --spot",
      [
        gcloud(
          *("tpu-vm", "create", "n", "--version=v2-alpha-tpuv5-lite"),
          *("--accelerator-type=v5litepod-16", "--spot"),
          where=("--zone=z", "--project=p"),
        )
      ],
    ),
    (
      f"--steps create --queued {KIND}",
      [
        gcloud(
          *("queued-resources", "create", "n", "--node-id=n"),
          "--runtime-version=v2-alpha-tpuv5-lite",
          "--accelerator-type=v5litepod-16",
        ),
        gcloud(
          *("queued-resources", "describe", "n"), "--format=value(state.state)"
        ),
      ],
    ),
    (
      "--steps logs --log_dir=d --log_workers 0 3 --run_name=r",
      [
        ["mkdir", "-p", "d"],
        *(
          gcloud(
            *("tpu-vm", "scp", "n:prompt_tuning_runs/r.log"),
            *(f"d/r.worker_{i}.log", f"--worker={i}"),
          )
          for i in (0, 3)
        ),
      ],
    ),
    ("--steps delete", [gcloud("tpu-vm", "delete", "n", "--quiet")]),
    (
      "--steps delete --queued",
      [gcloud("queued-resources", "delete", "n", "--quiet", "--force")],
    ),
  ],
)
def test_gcloud_gets_its_flags(capsys, text, calls):
  assert called(tpu_vm, f"{TPU} {text} --dry_run", []) == 0
  lines = capsys.readouterr().out.splitlines()
  found = [shlex.split(line) for line in lines if line[0] != "#"]
  # gcloud does not mind where a flag stands.
  assert [sorted(words) for words in found] == [sorted(c) for c in calls]


def test_the_queue_is_waited_for(fakes):
  states = "(ACCEPTED PROVISIONING ACTIVE)"
  fakes.add("gcloud", f's={states}; [ "$n" = 0 ] || echo "${{s[n - 1]}}"')
  text = f"{TPU} {KIND} --queued --poll_s=0 --steps create"
  assert called(tpu_vm, text, []) == 0
  verbs = [call[4] for call in fakes.calls()]
  assert verbs == ["create", "describe", "describe", "describe"]


def test_a_queue_without_hope_is_left(fakes, capsys):
  fakes.add("gcloud", "echo FAILED")
  text = f"{TPU} {KIND} --queued --poll_s=0 --package=p --steps create install"
  assert called(tpu_vm, text, []) == 2
  assert (
    "Its state is FAILED; it will not become ACTIVE" in capsys.readouterr().err
  )
  assert len(fakes.calls()) == 2


def remote(words):
  """What the shell of a worker gets: gcloud splits at blanks, ssh joins."""
  assert "--worker=all" in words
  return " ".join(option(words, "command").split(" "))


def test_a_wheel_is_copied_and_installed(fakes, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  wheel = tmp_path / "my dist" / "p-1.whl"
  wheel.parent.mkdir()
  wheel.touch()
  text = f"{TPU} --steps install --package='my dist/p-1.whl' --setup='echo hi'"
  assert called(tpu_vm, text, []) == 0
  copy, install = fakes.calls()
  assert sorted(copy) == sorted(
    gcloud("tpu-vm", "scp", "my dist/p-1.whl", "n:", "--worker=all")
  )
  for path in fakes.records.glob("*"):
    path.unlink()
  fakes.add("python3")
  done = shell(remote(install))
  assert (done.stdout, done.stderr) == ("hi\n", "")
  env = f"{os.environ['HOME']}/prompt_tuning_env"
  assert [" ".join(call[2:]) for call in fakes.calls()] == [
    "pip install --quiet --user uv",
    f"uv venv --quiet --allow-existing --python=3.12 {env}",
    f"uv pip install --quiet --python {env}/bin/python jax[tpu] ./p-1.whl",
  ]


def test_a_worker_runs_the_words_once(fakes):
  assert called(tpu_vm, f'{TPU} --env VARIABLE="it\'s " --run_name=r') == 0
  script = remote(fakes.only_call())
  fakes.records.joinpath("0").unlink()
  home = pathlib.Path(os.environ["HOME"])
  hold = home / "hold"
  hold.touch()
  fakes.add(
    str(home / "prompt_tuning_env/bin/prompt-tuning"),
    f"echo out; echo err >&2; while [ -e {hold} ]; do sleep 0.05; done",
  )
  try:
    first = shell(script)
    assert (first.returncode, first.stdout + first.stderr) == (0, "")
    assert fakes.only_call() == ["prompt-tuning", "train", *JOINED]
    assert fakes.records.with_name("variable").read_text() == "it's "
    second = shell(script)  # gcloud does so when a connection breaks
    assert (second.returncode, second.stderr) == (1, "r is running already\n")
    assert len(fakes.calls()) == 1
  finally:
    hold.unlink()
  assert (home / "prompt_tuning_runs/r.log").read_text() == "out\nerr\n"


@pytest.mark.parametrize(
  ("statuses", "most", "runs"),
  [
    ((75, 143, 137, 0), 5, 4),  # left alone, stopped, killed; then done
    ((75, 143, 0), 1, 2),
    ((75,), 0, 1),
    ((2, 0), 5, 1),  # the command line is at fault
    ((1, 0), 5, 1),  # every run diverged
    ((130, 0), 5, 1),  # Ctrl-C
  ],
)
def test_a_worker_starts_again_what_was_stopped(fakes, statuses, most, runs):
  assert called(tpu_vm, f"{TPU} --run_name=r --max_restarts={most}") == 0
  script = remote(fakes.only_call())
  home = pathlib.Path(os.environ["HOME"])
  folder = home / "prompt_tuning_runs"
  folder.mkdir()
  (folder / "r.status").write_text("of a run before")
  (home / "statuses").write_text("".join(f"{s}\n" for s in statuses))
  fakes.add("sleep")
  program_file = home / "prompt_tuning_env/bin/prompt-tuning"
  fakes.add(
    str(program_file),
    f"s=$(head -n 1 {home}/statuses); sed -i 1d {home}/statuses; exit $s",
  )
  assert shell(f"{script}\nwait").returncode == 0
  deadline = time.monotonic() + 20
  status = folder / "r.status"
  while not (status.exists() and status.read_text()):
    assert time.monotonic() < deadline
    time.sleep(0.02)
  assert status.read_text() == f"{statuses[runs - 1]}\n"
  names = [call[0] for call in fakes.calls()]
  assert names.count("prompt-tuning") == runs
  assert (folder / "r.log").read_text() == "".join(
    f"status {s}: restart {n} of {most}\n"
    for n, s in enumerate(statuses[: runs - 1], 1)
  )


# Gives out one state after the other, and the program's status at the end.
QUEUE = """case "$*" in
  *describe*) head -n 1 "$RECORDS/../states"; sed -i 1d "$RECORDS/../states";;
  *--worker=0*) [ -s "$RECORDS/../states" ] || cat "$RECORDS/../status";;
esac
"""


def watched(fakes, states, status, most):
  fakes.records.with_name("states").write_text(
    "".join(f"{state}\n" for state in states)
  )
  fakes.records.with_name("status").write_text(f"{status}\n")
  fakes.add("gcloud", QUEUE)
  text = f"{TPU} {KIND} --queued --poll_s=0 --package=p --steps run watch"
  code = called(tpu_vm, f"{text} --max_restarts={most}")
  verbs = [" ".join(call[3:5]) for call in fakes.calls()]
  return code, verbs


def test_a_tpu_that_is_taken_away_is_asked_for_again(fakes, capsys):
  states = ["ACTIVE", "SUSPENDING", "ACCEPTED", "ACTIVE", "ACTIVE"]
  code, verbs = watched(fakes, states, 0, 3)
  assert code == 0
  run, asked, ended = "tpu-vm ssh", "queued-resources describe", "tpu-vm ssh"
  again = ["queued-resources delete", "queued-resources create", asked, asked]
  install = "tpu-vm ssh"
  assert verbs == [
    *(run, asked, ended, asked),
    *(*again, install, run),
    *(asked, ended),
  ]
  out = capsys.readouterr().out
  assert "# It is SUSPENDING: restart 1 of 3" in out
  scripts = [
    option(call, "command") for call in fakes.calls() if "--worker=all" in call
  ]
  assert scripts[0] == scripts[2], "the same program goes on"


@pytest.mark.parametrize(
  ("states", "status", "message"),
  [
    (["SUSPENDED"], 0, "SUSPENDED, after 0 restarts (--max_restarts)"),
    (["ACTIVE"], 2, "The program ended with status 2"),
  ],
)
def test_a_watch_ends_where_a_restart_would_not_help(
  fakes, capsys, states, status, message
):
  code, _ = watched(fakes, states, status, 0)
  assert code == 2
  assert message in capsys.readouterr().err


# Fails as often as it is told to, then once in two; the program ends at last.
AWAY = """n=$(ls "$RECORDS" | wc -l)
[ $n -le FAILURES ] && exit 1
case "$*" in
  *describe*) [ $((n % 4)) = 1 ] && exit 1; echo ACTIVE;;
  *--worker=0*) [ $n -le 60 ] && exit 1; echo 0;;
esac
"""


@pytest.mark.parametrize(("failures", "code"), [(38, 0), (1_000, 2)])
def test_a_watch_that_nobody_answers_gives_up(fakes, capsys, failures, code):
  """As with another project's login; after a while only, and both fail."""
  fakes.add("gcloud", AWAY.replace("FAILURES", str(failures)))
  text = f"{TPU} {KIND} --queued --poll_s=0 --package=p --steps watch"
  assert called(tpu_vm, text) == code
  assert (len(fakes.calls()) == 40) == bool(code)
  error = capsys.readouterr().err
  assert ("gcloud failed 20 times in a row" in error) == bool(code)


# The machine is there, and no program runs on it, as often as it is told to.
WITHOUT = """n=$(ls "$RECORDS" | wc -l)
case "$*" in
  *describe*) echo ACTIVE;;
  *--worker=0*) [ $n -le LOOKS ] && echo gone || echo 0;;
esac
"""


@pytest.mark.parametrize(("looks", "code"), [(38, 0), (1_000, 2)])
def test_a_watch_of_no_program_gives_up(fakes, capsys, looks, code):
  """As with another run's name; a machine that is taken away comes back."""
  fakes.add("gcloud", WITHOUT.replace("LOOKS", str(looks)))
  text = f"{TPU} {KIND} --queued --poll_s=0 --package=p --steps watch"
  assert called(tpu_vm, text) == code
  assert len(fakes.calls()) == 40
  assert ("--run_name" in capsys.readouterr().err) == bool(code)


def test_a_worker_tells_a_program_that_runs_from_none(fakes):
  text = f"{TPU} {KIND} --queued --poll_s=0 --package=p --run_name=r"
  fakes.add("gcloud", WITHOUT.replace("LOOKS", "0"))
  assert called(tpu_vm, f"{text} --steps watch") == 0
  script = option(fakes.calls()[-1], "command")

  def printed():
    done = shell(script)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout

  folder = pathlib.Path(os.environ["HOME"]) / "prompt_tuning_runs"
  assert printed() == "gone\n", "it was never started"
  folder.mkdir()
  assert printed() == "gone\n"
  assert not list(folder.iterdir()), "a look leaves nothing"
  with open(folder / "r.lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert printed() == "", "it runs"
    (folder / "r.status").write_text("0\n")
    assert printed() == "0\n", "it has ended, and what it started has not"
    (folder / "r.status").unlink()
  assert printed() == "gone\n", "its machine stopped under it"


@pytest.mark.parametrize(
  ("module", "text"),
  [
    (gke, f"{GKE} --max_restarts=4 --shards=2"),
    (
      tpu_vm,
      f"{TPU} {KIND} --queued --package=p --max_restarts=4 "
      "--steps create install run watch",
    ),
  ],
)
def test_sweeps_start_again_too(capsys, module, text):
  args = [*ARGS, "--axis", "SEEDS=(0, 1)"]
  assert called(module, f"{text} --program=sweep --dry_run", args) == 0
  lines = capsys.readouterr().out.splitlines()
  if module is gke:
    options = [shlex.split(line) for line in lines]
    assert len(options) == 2
    for words in options:
      assert option(words, "max-restarts") == "4"
      assert option(words, "restart-on-exit-codes") == "75"
  else:
    (run,) = [line for line in lines if line[0] != "#" and "nohup" in line]
    assert "prompt-tuning sweep" in run
    assert "-lt 4" in run


# Slurm.

NODE = {
  "SLURM_JOB_ID": "12345",
  "SLURM_JOB_NODELIST": "gpu[07-08]",
  "SLURM_NTASKS": "2",
  "SLURM_PROCID": "1",
}


def test_a_task_knows_its_place(fakes, capsys, monkeypatch):
  # A signal that submitit asks for must not end the program.
  python = fakes.add("my python", "kill -USR2 $$")
  fakes.add("scontrol", "printf 'gpu07\\ngpu08\\n'")
  monkeypatch.setattr(sys, "executable", str(python))
  assert called(slurm, f"{SLURM} --env VARIABLE='x y' --dry_run") == 0
  printed = capsys.readouterr().out
  script = printed.partition("# every task runs\n")[2]
  done = shell(script, **NODE)
  assert (done.returncode, done.stderr) == (0, "")
  asked, task = fakes.calls()
  assert asked == ["scontrol", "show", "hostnames", "gpu[07-08]"]
  assert task == [
    *("my python", "-m", "prompt_tuning.launch.main", "train", *ARGS),
    "--coordinator_address=gpu07:61497",  # 61440 + 12345 % 4096
    "--process_count=2",
    "--process_index=1",
  ]
  assert fakes.records.with_name("variable").read_text() == "x y"
  assert "JAX_LOCAL_DEVICE_IDS=0,1,2,3 " in script


class Executor:
  """Stands in for submitit.AutoExecutor."""

  made: "Executor"

  def __init__(self, **settings):
    Executor.made, self.settings = self, settings

  def update_parameters(self, **parameters):
    self.parameters = parameters

  @contextlib.contextmanager
  def batch(self):
    """What is submitted inside, is one array."""
    self.array = []
    yield

  def submit(self, task):
    self.task = task
    if hasattr(self, "array"):
      self.array.append(task)
    paths = types.SimpleNamespace(stdout="out")
    return types.SimpleNamespace(job_id="1", paths=paths)


@pytest.mark.parametrize(
  "option",
  [
    "gres=gpu:a100:4",
    "gres=lscratch:100,gpu",
    "gpus=8",
    "gpus_per_node=a100:4",
    "gpus_per_socket=2",
    "gpus_per_task=4",
    "ntasks_per_gpu=1",
    "tres_per_task=cpu=8,gres/gpu:a100=4",
  ],
)
def test_slurm_wants_the_number_of_gpus(capsys, option):
  without = SLURM.replace("--gpus_per_node=4", "")
  assert without != SLURM
  text = f"--sbatch comment=x --sbatch {option} --dry_run"
  assert called(slurm, f"{without} {text}") == 2
  error = capsys.readouterr().err
  assert f"--sbatch {option} " in error
  assert "--gpus_per_node" in error
  assert called(slurm, f"{SLURM} {text}") == 0


@pytest.mark.parametrize(
  "option", ["partition=gpu", "constraint=gpu", "gres=lscratch:100", "mem=0"]
)
def test_slurm_runs_without_gpus(capsys, option):
  text = SLURM.replace("--gpus_per_node=4", f"--sbatch {option} --dry_run")
  assert called(slurm, text) == 0
  assert "JAX_LOCAL_DEVICE_IDS" not in capsys.readouterr().out


def test_submitit_gets_one_task_per_node(fakes, capsys, monkeypatch):
  module = types.ModuleType("submitit")
  module.AutoExecutor = Executor
  monkeypatch.setitem(sys.modules, "submitit", module)
  text = f"{SLURM} --mem_gb=64 --partition=p --sbatch gres=gpu:a100:4"
  assert called(slurm, f"{text} --folder=f --setup 'module load x'") == 0
  made = Executor.made
  assert made.settings == {
    "folder": "f",
    "cluster": "slurm",
    "slurm_max_num_timeout": 3,
  }
  assert made.parameters == {
    "name": "prompt_tuning",
    "timeout_min": 60,
    "nodes": 2,
    "tasks_per_node": 1,
    "gpus_per_node": 4,
    "mem_gb": 64,
    "slurm_partition": "p",
    "slurm_setup": ["module load x"],
    "slurm_signal_delay_s": 300,
    "slurm_additional_parameters": {"gres": "gpu:a100:4"},
  }
  assert made.task.script in capsys.readouterr().out


SWEPT = [*ARGS, "--axis=SEEDS=0,1,2", "--report"]


def test_a_sweep_is_one_array(fakes, capsys, monkeypatch):
  module = types.ModuleType("submitit")
  module.AutoExecutor = Executor
  monkeypatch.setitem(sys.modules, "submitit", module)
  text = f"{SLURM} --program=sweep --shards=3"
  assert called(slurm, text, SWEPT) == 0
  scripts = [task.script for task in Executor.made.array]
  assert [
    [word for word in script.split() if "--shard=" in word]
    for script in scripts
  ] == [["--shard=0/3"], ["--shard=1/3"], ["--shard=2/3"]]
  assert all("--coordinator_address" in script for script in scripts)
  printed = capsys.readouterr().out
  assert "#SBATCH --array=0-2%3" in printed
  assert f"# every task of part 0 runs\n{scripts[0]}" in printed


def test_a_sweep_is_some_workloads(fakes):
  text = f"{GKE} --program=sweep --shards=2"
  assert called(gke, text, SWEPT) == 0
  calls = fakes.calls()
  assert [option(call, "workload") for call in calls] == ["w-0", "w-1"]
  for number, call in enumerate(calls):
    words = shlex.split(option(call, "command").replace("$$", "$"))
    assert words == [
      *("prompt-tuning", "sweep", *SWEPT),
      *(f"--shard={number}/2", "--multiprocess_gpu"),
    ]


@pytest.mark.parametrize(
  ("text", "args", "message"),
  [
    ("--shards=2", ARGS, "--shards 2 is for sweeps only"),
    ("--program=sweep --shards=0", SWEPT, "a positive number"),
    (
      "--program=sweep --shards=2",
      [*SWEPT, "--shard=0/2"],
      "Leave out --shard",
    ),
    (
      "--program=sweep",
      [*SWEPT, "--axes=A=1"],
      "Unknown argument '--axes=A=1'",
    ),
  ],
)
def test_sweeps_that_cannot_be_divided(fakes, capsys, text, args, message):
  assert called(gke, f"{GKE} {text}", args) == 2
  assert message in capsys.readouterr().err
  assert fakes.calls() == []


def test_submitit_s_absence_says_how_to_get_it(fakes, capsys, monkeypatch):
  monkeypatch.setitem(sys.modules, "submitit", None)
  assert called(slurm, SLURM) == 2
  assert "pip install 'submitit" in capsys.readouterr().err
  assert fakes.calls() == []


@pytest.mark.parametrize(
  "text",
  [
    SLURM,
    f"{SLURM} --mem_gb=64 --cpus_per_task=8 --partition=p --account='a b' "
    "--qos=q --name=x --folder='runs/my jobs' --setup 'module load x' "
    "--setup 'ulimit -n 9' --sbatch gres=gpu:a100:4 --sbatch signal=USR1@9",
    f"{SLURM} --program=sweep --shards=3",
  ],
)
def test_the_printed_batch_file_is_submitit_s(fakes, text):
  submitit = pytest.importorskip("submitit")
  given = slurm._parser().parse_args(shlex.split(text))
  executor = submitit.AutoExecutor(folder=given.folder, cluster="slurm")
  executor.update_parameters(**slurm.parameters(given))
  inner = executor._executor
  if given.shards > 1:
    inner.parameters["map_count"] = given.shards
  text = inner._make_submission_file_text(inner._submitit_command_str, "")
  assert slurm.batch_file(given).splitlines() == text.splitlines()


@pytest.mark.parametrize("told", [True, False])
def test_a_task_that_saved_has_not_failed(told, tmp_path):
  """What SIGTERM stops ends with 143; unless it was told to, that is a loss."""
  ready = tmp_path / "ready"
  task = slurm_task.Task(
    f"trap 'exit 143' TERM; touch {ready}; while :; do sleep 0.02; done"
  )

  def stop():
    while not ready.exists():
      time.sleep(0.01)
    if told:
      task._stop()
    else:
      os.kill(task._child.pid, signal.SIGTERM)

  before = signal.getsignal(signal.SIGUSR2)
  thread = threading.Thread(target=stop)
  thread.start()
  loses = pytest.raises(ChildProcessError, match="ended with status 143")
  try:
    with contextlib.nullcontext() if told else loses:
      task()
  finally:
    thread.join()
    signal.signal(signal.SIGUSR2, before)


def test_before_the_end_a_task_saves_and_is_queued_again(monkeypatch, tmp_path):
  module = types.ModuleType("submitit")
  module.helpers = types.SimpleNamespace(DelayedSubmission=lambda task: task)
  monkeypatch.setitem(sys.modules, "submitit", module)
  saved, ready = tmp_path / "saved", tmp_path / "ready"
  task = slurm_task.Task(
    f"trap 'sleep 0.2; touch {saved}; exit' TERM; touch {ready}; "
    "while :; do sleep 0.05; done"
  )
  queued = []

  def submitit_handler(number, frame):
    queued.append((task.checkpoint(), saved.exists()))

  def signal_when_ready():
    while not ready.exists():
      time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGUSR2)

  before = signal.signal(signal.SIGUSR2, submitit_handler)
  thread = threading.Thread(target=signal_when_ready)
  thread.start()
  try:
    task()
  finally:
    thread.join()
    signal.signal(signal.SIGUSR2, before)
  assert queued == [(task, True)]


def test_a_task_fails_with_its_program_and_travels():
  task = pickle.loads(pickle.dumps(slurm_task.Task("exit 3")))
  before = signal.getsignal(signal.SIGUSR2)
  try:
    with pytest.raises(ChildProcessError, match="status 3"):
      task()
    assert pickle.loads(pickle.dumps(task)).script == "exit 3"
  finally:
    signal.signal(signal.SIGUSR2, before)
