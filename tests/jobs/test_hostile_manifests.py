"""Manifests that a stranger wrote: one clear error each, and nothing escapes.

An error names the file and the key, what was expected and what is there.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import types

import numpy as np
import pytest
import safetensors.numpy

from prompt_tuning.checkpoints import bundle, hf, hf_config, orbax, peft
from prompt_tuning.checkpoints import delta as deltas
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.core import files
from prompt_tuning.core.delta import Delta
from prompt_tuning.core.placement import Placement
from prompt_tuning.core.shape import ModelShape
from prompt_tuning.data import cache, installed
from prompt_tuning.data.bank import BankIterator
from prompt_tuning.infer.runs import Runs
from prompt_tuning.jobs import (
  comparison,
  export,
  inspect,
  load,
  pretrain_report,
)
from prompt_tuning.models.t5 import config as t5_config

VALUES = np.ones((1, 3, 4), np.float32)
PROMPT = {
  "class": "Prompt",
  "emb_dim": 4,
  "encoder_length": 3,
  "encoder_position": "before",
  "decoder_length": 0,
}
BUNDLE = {
  "run": {
    "runs": [{"name": "one", "task": "t", "seed": 0, "learning_rate": 0.3}],
    "tuners": [PROMPT],
    "backbone": {"fingerprint": "f00d"},
    "start_step": 0,
  },
  "step": 3,
  "progress": {"best": [None], "stale": 0, "tokens": [1, 2]},
  "data": {"runs": []},
}
GONE = object()
DEEP = "[" * 100_000 + "]" * 100_000
HUGE = "9" * 5_000


def changed(value, path, new):
  """Copy JSON with one value replaced, or taken out."""
  value = json.loads(json.dumps(value))
  *above, last = path
  node = value
  for key in above:
    node = node[key]
  if new is GONE:
    del node[last]
  else:
    node[last] = new
  return value


def written(manifest):
  """Write JSON in which strings `DEEP` and `HUGE` stand for themselves."""
  text = json.dumps(manifest)
  return text.replace('"DEEP"', DEEP).replace('"HUGE"', HUGE)


def write_bundle(folder, manifest, arrays=None):
  """Write a bundle as a forger would: with digests that are right."""
  folder.mkdir(parents=True)
  data = safetensors.numpy.save(arrays or ARRAYS)
  (folder / "trainable.safetensors").write_bytes(data)
  manifest = {
    "format": bundle.FORMAT,
    "version": bundle.VERSION,
    "files": {"trainable.safetensors": hashlib.sha256(data).hexdigest()},
    **manifest,
  }
  plain = json.dumps(manifest, sort_keys=True)
  manifest["digest"] = hashlib.sha256(plain.encode()).hexdigest()
  (folder / "manifest.json").write_text(written(manifest))
  return folder


ARRAYS = {"tuner/encoder/prompt/prompt/prompt": VALUES}
RUN = ("run", "runs", 0)
METHOD = ("run", "tuners", 0)
HOSTILE_BUNDLES = {
  "a name that climbs": ((*RUN, "name"), "../victim", "name"),
  "an absolute name": ((*RUN, "name"), "/tmp/victim", "name"),
  "a name with a backslash": ((*RUN, "name"), "..\\victim", "name"),
  "a name that is the folder": ((*RUN, "name"), "..", "name"),
  "a name with NUL": ((*RUN, "name"), "a\0b", "name"),
  "a name with a line break": ((*RUN, "name"), "a\nb", "name"),
  "a name that no file can have": ((*RUN, "name"), "n" * 300, "name"),
  "a name that UTF-8 cannot hold": ((*RUN, "name"), "\ud800", "name"),
  "a name of a temporary file": ((*RUN, "name"), "a.tmp-12", "name"),
  "a name that is a number": ((*RUN, "name"), 7, "name"),
  "no name": ((*RUN, "name"), GONE, "name"),
  "a task that is a list": ((*RUN, "task"), ["t"], "task"),
  "no run": (("run",), GONE, "run"),
  "a run that is a text": (("run",), "mine", "run"),
  "runs that are an object": (("run", "runs"), {"0": 1}, "runs"),
  "no runs": (("run", "runs"), [], "runs"),
  "two runs of one name": (
    ("run", "runs"),
    [{"name": "a"}, {"name": "a"}],
    "runs",
  ),
  "too many methods": (("run", "tuners"), [PROMPT, PROMPT], "tuners"),
  "a method that is null": (METHOD, None, "tuners"),
  "a method without a class": ((*METHOD, "class"), GONE, "class"),
  "a class that is a list": ((*METHOD, "class"), ["Prompt"], "class"),
  "a class of no module": ((*METHOD, "class"), "no.such:Method", "no.such"),
  "a class that is no method": ((*METHOD, "class"), "os:path", "os"),
  "a setting nobody has": ((*METHOD, "poison"), 1, "poison"),
  "a length that is a text": (
    (*METHOD, "encoder_length"),
    "3",
    "run.tuners[0]",
  ),
  "a length that is negative": (
    (*METHOD, "encoder_length"),
    -3,
    "run.tuners[0]",
  ),
  "a length of nothing": ((*METHOD, "encoder_length"), 0, "run.tuners[0]"),
  "a length that is huge": (
    (*METHOD, "encoder_length"),
    10**12,
    "prompt tuning",
  ),
  "a length that is NaN": (
    (*METHOD, "encoder_length"),
    np.nan,
    "run.tuners[0]",
  ),
  "a width that is an object": (
    (*METHOD, "emb_dim"),
    {"class": "X"},
    "prompt tuning",
  ),
  "no backbone": (("run", "backbone"), GONE, "backbone"),
  "a fingerprint that is a number": (
    ("run", "backbone", "fingerprint"),
    1,
    "fingerprint",
  ),
  "a start that is a text": (("run", "start_step"), "0", "start_step"),
  "no step": (("step",), GONE, "step"),
  "a negative step": (("step",), -1, "step"),
  "a step that is NaN": (("step",), np.nan, "step"),
  "a step that is true": (("step",), True, "step"),
  "a step of 5,000 digits": (("step",), "HUGE", "manifest"),
  "a step that is beyond float": (("step",), 1e300, "step"),
  "a run that is not there": (("run_index",), 3, "run_index"),
  "a run before the first": (("run_index",), -1, "run_index"),
  "progress that is a list": (("progress",), [1], "progress"),
  "a best without a step": (("progress", "best", 0), {"score": 1}, "best"),
  "data that is null": (("data",), None, "data"),
  "a vocabulary without a hash": (("vocabulary",), {"file": "a"}, "sha256"),
  "nested beyond reading": (("about",), "DEEP", "manifest"),
  "another version": (("version",), 99, "version"),
  "a version that is a list": (("version",), [1], "version"),
  "files that are a list": (("files",), ["a"], "files"),
  "files elsewhere": (("files",), {"../../secret": "0"}, "secret"),
}


def read_hostile(call, folder, key):
  """Insist on one error that names file and key; returns its text."""
  with pytest.raises(ValueError, match=r".") as raised:
    call()
  assert type(raised.value) in (CheckpointError, ValueError)
  text = str(raised.value)
  assert key in text
  assert len(text) < 2_000
  return text


@pytest.mark.parametrize("case", HOSTILE_BUNDLES)
def test_bundles(tmp_path, case):
  path, new, key = HOSTILE_BUNDLES[case]
  manifest = {"about": 0, **BUNDLE}
  if path[0] in ("run_index", "version", "files"):
    manifest = {path[0]: 0, **manifest}
  folder = tmp_path / "inside" / "bundle"
  write_bundle(folder, changed(manifest, path, new))
  before = sorted(tmp_path.rglob("*"))
  text = read_hostile(lambda: load.load(folder), folder, key)
  if "manifest.json" in text:
    assert "expected" in text
    assert "found" in text
  with pytest.raises(ValueError, match=r"."):
    export.export_all(str(folder), str(tmp_path / "inside" / "out"))
  assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("where", ["bundles/step_00000003", "."])
@pytest.mark.parametrize("name", ["../victim", "a\x1b[2Jb", "a\nb", "n" * 300])
def test_looking_at_names(tmp_path, name, where):
  """`inspect` refuses what loading would, of a bundle and of a training."""
  manifest = changed(BUNDLE, (*RUN, "name"), name)
  write_bundle(tmp_path / "bundles" / "step_00000003", manifest)
  path = str(tmp_path / where)
  text = read_hostile(lambda: inspect.report(path), path, "name")
  assert "\x1b" not in text


def test_looking_at_texts_moves_no_cursor(tmp_path):
  manifest = changed(BUNDLE, (*RUN, "task"), "t\x1b[2J\r\u202e\U000e0001")
  folder = write_bundle(tmp_path / "b", manifest)
  shown = "\n".join(inspect.lines(inspect.report(str(folder))))
  assert r"task: t\x1b[2J\r\u202e\U000e0001" in shown


HOSTILE_ARRAYS = {
  "none": ({"tuner/other": VALUES}, "other [1, 3, 4]"),
  "of another number of runs": (
    {next(iter(ARRAYS)): np.ones((2, 3, 4), "f4")},
    "1 runs",
  ),
  "without dimensions": ({next(iter(ARRAYS)): np.ones((), "f4")}, "1 runs"),
  "of another shape": (
    {next(iter(ARRAYS)): np.ones((1, 9, 4), "f4")},
    "[1, 9, 4]",
  ),
  "NaN": ({next(iter(ARRAYS)): VALUES * np.nan}, "diverged"),
  "infinite": ({next(iter(ARRAYS)): VALUES * np.inf}, "diverged"),
}


@pytest.mark.parametrize("case", HOSTILE_ARRAYS)
def test_arrays_of_bundles(tmp_path, case):
  arrays, key = HOSTILE_ARRAYS[case]
  folder = write_bundle(tmp_path / "b", BUNDLE, arrays)
  read_hostile(lambda: load.load(folder), folder, key)


def test_a_copy_beside_the_best_is_passed_over(tmp_path, caplog):
  """`run_0 (copy)`, as file managers call it, is no run; it was a traceback."""
  for name in ("run_0", "run_0 (copy)", "run_00", "notes"):
    one = {**BUNDLE, "run_index": 0}
    write_bundle(tmp_path / "best" / name / "step_00000003", one)
  assert load.load(tmp_path).names == ("one",)
  for name in ("run_0 (copy)", "run_00", "notes"):
    assert f"{name}: its name is not run_<number>" in caplog.text


def test_the_bundle_that_they_are_made_of_is_read(tmp_path):
  folder = write_bundle(tmp_path / "b", BUNDLE)
  tuned = load.load(folder)
  assert tuned.names == ("one",)
  np.testing.assert_array_equal(tuned.runs.delta.virtual, VALUES)
  assert not export.export_all(str(folder), str(tmp_path / "out"))[3:]


def test_a_bundle_says_what_peft_builds_on(tmp_path):
  """And so do an export of it, and the export of that."""
  source = str(write_bundle(tmp_path / "b", {**BUNDLE, "base_model": "a/b"}))
  for target in ("once", "again"):
    export.export_all(source, str(tmp_path / target))
    source = str(next((tmp_path / target).glob("**/delta")))
    config = next((tmp_path / target).glob("**/adapter_config.json"))
    said = json.loads(config.read_text())["base_model_name_or_path"]
    assert said == "a/b"


DELTA = {
  "placement": {"encoder_prefix": [0, 1, 2]},
  "about": {"task": "t", "step": 3, "backbone": "f00d", "method": PROMPT},
}
HOSTILE_DELTAS = {
  "a row that is not there": (("placement", "encoder_prefix"), [7], "7"),
  "a row that is a text": (("placement", "encoder_prefix"), ["0"], "prefix"),
  "a row before the first": (("placement", "encoder_prefix"), [-1], "prefix"),
  "a row of a half": (("placement", "encoder_prefix"), [0.5], "prefix"),
  "rows that are a number": (("placement", "encoder_prefix"), 3, "prefix"),
  "rows of nowhere": (("placement", "elsewhere"), [0], "elsewhere"),
  "no placement": (("placement",), GONE, "placement"),
  "no digest": (("sha256",), None, "sha256"),
  "about that is a list": (("about",), [], "about"),
  "a task that is an object": (("about", "task"), {"a": 1}, "task"),
  "a step that is a text": (("about", "step"), "3", "step"),
  "a backbone that is a number": (("about", "backbone"), 3, "backbone"),
  "a method that is a text": (("about", "method"), "Prompt", "method"),
  "nested beyond reading": (("about", "task"), "DEEP", "delta.json"),
  "a number of 5,000 digits": (("about", "step"), "HUGE", "delta.json"),
}


def write_delta(folder, manifest, arrays):
  folder.mkdir()
  data = safetensors.numpy.save(arrays)
  (folder / "delta.safetensors").write_bytes(data)
  digest = hashlib.sha256(data).hexdigest()
  kind = {"format": deltas.FORMAT, "version": deltas.VERSION, "sha256": digest}
  (folder / "delta.json").write_text(written({**kind, **manifest}))
  return folder


@pytest.mark.parametrize("case", HOSTILE_DELTAS)
def test_deltas(tmp_path, case):
  path, new, key = HOSTILE_DELTAS[case]
  manifest = changed({"sha256": 0, **DELTA}, path, new)
  if path[0] != "sha256":
    del manifest["sha256"]
  folder = write_delta(tmp_path / "d", manifest, {"virtual": VALUES})
  read_hostile(lambda: load.load(folder), folder, key)


@pytest.mark.parametrize(
  ("arrays", "key"),
  [
    ({"virtual": VALUES[0]}, "virtual"),
    ({"virtual": np.ones((), "f4")}, "virtual"),
    ({"virtual": np.ones((1, 0, 4), "f4")}, "virtual"),
    ({"virtual": np.ones((2, 3, 4), "f4")}, "virtual"),
    ({"virtual": VALUES.astype("i4")}, "virtual"),
    ({"virtual": VALUES * np.nan}, "virtual"),
    ({"virtual": VALUES.astype("f8") * 1e300}, "virtual"),
    ({"lowrank/enc_self/query/a": np.ones((1, 2, 4, 1), "f4")}, "lowrank"),
    ({"../../elsewhere": VALUES}, "elsewhere"),
    ({"hidden/encoder/replace": np.ones((1, 2, 3), "f4")}, "hidden"),
  ],
)
def test_arrays_of_deltas(tmp_path, arrays, key):
  folder = write_delta(tmp_path / "d", DELTA, arrays)
  read_hostile(lambda: load.load(folder), folder, key)


ADAPTERS = {
  "PROMPT_TUNING": (
    {"num_virtual_tokens": 3, "token_dim": 4},
    {"prompt_embeddings": VALUES[0]},
  ),
  "LORA": (
    {"r": 1, "lora_alpha": 2, "target_modules": ["q"]},
    {
      "base_model.model.encoder.block.0.layer.0.SelfAttention.q."
      f"lora_{name}.weight": np.ones(shape, "f4")
      for name, shape in (("A", (1, 4)), ("B", (4, 1)))
    },
  ),
}
SHAPE = ModelShape(emb_dim=4, num_heads=1, head_dim=4, num_encoder_layers=1)


@pytest.mark.parametrize(
  ("kind", "key", "new"),
  [
    ("PROMPT_TUNING", "peft_type", ["LORA"]),
    ("PROMPT_TUNING", "peft_type", None),
    ("PROMPT_TUNING", "task_type", {"a": 1}),
    ("PROMPT_TUNING", "num_virtual_tokens", "3"),
    ("PROMPT_TUNING", "num_virtual_tokens", 0),
    ("PROMPT_TUNING", "num_virtual_tokens", -3),
    ("PROMPT_TUNING", "num_virtual_tokens", 10**12),
    ("PROMPT_TUNING", "num_virtual_tokens", np.nan),
    ("PROMPT_TUNING", "token_dim", [4]),
    ("LORA", "r", "1"),
    ("LORA", "r", 0),
    ("LORA", "r", 10**12),
    ("LORA", "lora_alpha", "2"),
    ("LORA", "lora_alpha", np.nan),
    ("LORA", "lora_alpha", np.inf),
    ("LORA", "lora_alpha", [2]),
    ("LORA", "use_dora", True),
    ("LORA", "target_modules", ["nowhere", "q", "v"]),
    ("LORA", "layers_to_transform", "DEEP"),
  ],
)
def test_adapters(tmp_path, kind, key, new):
  config, arrays = ADAPTERS[kind]
  config = {"peft_type": kind, "task_type": "SEQ_2_SEQ_LM", **config, key: new}
  (tmp_path / peft.CONFIG).write_text(written(config))
  safetensors.numpy.save_file(arrays, tmp_path / peft.WEIGHTS)
  named = {"LORA": "LORA", "DEEP": peft.CONFIG}
  expected = {"num_virtual_tokens": "", "token_dim": "", "r": ""}.get(key, key)
  if new == "DEEP":
    expected = named["DEEP"]
  if key == "target_modules":
    expected = "its arrays, as target_modules says"
  read_hostile(lambda: load.load(tmp_path, SHAPE), tmp_path, expected)


MODEL = types.SimpleNamespace(
  config=dataclasses.replace(t5_config.get("t5_1_1_small"), emb_dim=4),
  fingerprint="f00d",
)


@pytest.mark.parametrize("key", ["../victim", "/tmp/victim", "a/b", "..", 7])
def test_keys_of_prompt_file(key):
  """They become folders of `eval`, beside those of other prompts."""
  with pytest.raises(ValueError, match=r"key of PROMPT_FILE.*folder"):
    load.load_several({key: None}, MODEL, None)


def test_names_that_two_prompts_would_share(tmp_path):
  (one,), (tuner,) = BUNDLE["run"]["runs"], BUNDLE["run"]["tuners"]
  runs = {"runs": [one, {**one, "name": "two"}], "tuners": [tuner, tuner]}
  two = {**BUNDLE, "run": {**BUNDLE["run"], **runs}}
  two["progress"] = {**BUNDLE["progress"], "best": [None, None]}
  arrays = {name: np.concatenate([a, a]) for name, a in ARRAYS.items()}
  folder = write_bundle(tmp_path / "b", two, arrays)
  several = {"a": str(folder), "a_one": None}
  with pytest.raises(ValueError, match="several runs the same name, a_one"):
    load.load_several(several, MODEL, None)
  several = {"a": str(folder), "b": None}
  assert load.load_several(several, MODEL, None).names == (
    "a_one",
    "a_two",
    "b",
  )


def test_one_prompt_has_the_name_that_it_is_given(tmp_path):
  """Also one of a bank, which has a name of its own."""
  folder = write_bundle(tmp_path / "b", BUNDLE)
  loaded = load.load_several({"t": str(folder), "b": None}, MODEL, None)
  assert loaded.names == loaded.keys == ("t", "b")
  loaded = load.load_several([str(folder), None], MODEL, None)
  assert (loaded.names, loaded.keys) == (("0_one", "1"), (None, None))


@pytest.mark.parametrize(
  "name", ["", ".", "..", "a/b", "a\\b", "a\0", "a\n", "\ud800", "é" * 91, 3]
)
def test_what_is_no_name(tmp_path, name):
  assert not files.is_name(name)
  if name:
    with pytest.raises(ValueError, match="Choose another name"):
      files.below(tmp_path, name, "A run")


@pytest.mark.parametrize("name", ["a", "pr:glue_sst2", "a b", "é", "...", "-x"])
def test_what_is_a_name(tmp_path, name):
  path = files.below(tmp_path, name, "A run")
  assert path.parent == pathlib.Path(tmp_path)
  path.touch()


def test_the_folder_itself_needs_no_name(tmp_path):
  assert files.below(tmp_path, "", "A run") == tmp_path


CONFIG = {
  "model_type": "t5",
  "feed_forward_proj": "relu",
  "num_layers": 2,
  "d_model": 8,
}
STAGE = {
  "stage": "one",
  "held_out": {"c": [[0, 1.5], [3, 1.25]]},
  "sentinel_share": None,
  "seconds": 2.5,
  "tokens_per_second": 1.5,
  "flops_per_second": 1e9,
} | dict.fromkeys(
  (
    *("steps", "encoder_tokens", "decoder_tokens"),
    *("parameters", "non_embedding_parameters"),
  ),
  3,
)
COMPARISON = {
  "scores": [{"method": "m", "task": "t", "seed": None, "score": 50.0}],
  "seconds": {"m": 1.5},
  "steps": {"m": 3},
  "parameters": 10,
  "trained": {"m": 2},
  "frozen": True,
}
CACHE = {
  "fields": {"task": {"name": "t"}, "split": "train", "lengths": {"inputs": 8}},
  "key": "f00d",
  "truncated": {"inputs": 0},
  "files": {
    f"{name}.{kind}.npy": "f00d"
    for name in ("inputs", "targets", "columns")
    for kind in ("values", "offsets")
  },
}
INFO = {"splits": [{"name": "train", "shardLengths": ["3", "4"]}]}
INDEX = {"weight_map": {"shared.weight": "model-1.safetensors"}}
METADATA = {
  "tree_metadata": {
    "('target',)": {
      "key_metadata": [{"key": "target"}],
      "value_metadata": {"value_type": "Dict"},
    }
  }
}


def read_index(folder):
  (folder / "config.json").write_text(json.dumps(CONFIG))
  return hf.open_hf(str(folder))


def read_stage(folder):
  job = types.SimpleNamespace(folder=lambda stage: folder)
  return pretrain_report.table([pretrain_report.read(job, None)])


# File -> (what is in it, what reads it).
READERS = {
  "config.json": (CONFIG, lambda folder: hf_config.read(str(folder))),
  "model.safetensors.index.json": (INDEX, read_index),
  "_METADATA": (METADATA, lambda f: orbax.open_orbax(str(f), str(f))),
  "stage.json": (STAGE, read_stage),
  "comparison.json": (COMPARISON, comparison.read),
  "manifest.json": (CACHE, cache._read_manifest),
  "dataset_info.json": (INFO, lambda f: installed.splits(f.parent, f.name)),
}
DAMAGE = (CheckpointError, cache.DamagedError, ValueError)
HOSTILE_FILES = [
  ("config.json", ("model_type",), ["t5"]),
  ("config.json", ("feed_forward_proj",), {"relu": 1}),
  ("config.json", ("num_layers",), "2"),
  ("config.json", ("num_layers",), -2),
  ("config.json", ("num_layers",), np.nan),
  ("config.json", ("num_layers",), 1 << 60),
  ("config.json", ("d_model",), True),
  ("config.json", ("dropout_rate",), "0.1"),
  ("config.json", ("dropout_rate",), np.nan),
  ("config.json", ("relative_attention_max_distance",), 0),
  ("config.json", ("layer_norm_epsilon",), np.inf),
  ("config.json", ("d_model",), "DEEP"),
  ("model.safetensors.index.json", ("weight_map",), GONE),
  ("model.safetensors.index.json", ("weight_map",), ["a"]),
  ("model.safetensors.index.json", ("weight_map", "shared.weight"), 7),
  ("model.safetensors.index.json", ("weight_map", "shared.weight"), "../m"),
  ("model.safetensors.index.json", ("weight_map", "shared.weight"), "/etc/m"),
  ("_METADATA", ("tree_metadata",), GONE),
  ("_METADATA", ("tree_metadata",), [1]),
  ("_METADATA", ("tree_metadata", "('target',)"), None),
  ("_METADATA", ("tree_metadata", "('target',)", "key_metadata"), "target"),
  ("_METADATA", ("tree_metadata", "('target',)", "key_metadata", 0), {}),
  ("_METADATA", ("tree_metadata", "('target',)", "value_metadata"), 7),
  ("_METADATA", ("tree_metadata",), "DEEP"),
  ("stage.json", ("held_out",), [1]),
  ("stage.json", ("held_out", "c", 0), [0]),
  ("stage.json", ("held_out", "c", 0), [0, "1.5"]),
  ("stage.json", ("steps",), "3"),
  ("stage.json", ("seconds",), np.nan),
  ("stage.json", ("sentinel_share",), "all"),
  ("stage.json", ("parameters",), "HUGE"),
  ("comparison.json", ("scores", 0), {}),
  ("comparison.json", ("scores", 0, "score"), "50"),
  ("comparison.json", ("frozen",), 1),
  ("comparison.json", ("steps",), GONE),
  ("manifest.json", ("fields", "task"), None),
  ("manifest.json", ("fields", "lengths", "inputs"), -8),
  ("manifest.json", ("key",), 7),
  ("manifest.json", ("truncated",), GONE),
  ("manifest.json", ("files",), {"../elsewhere": "f00d"}),
  ("manifest.json", ("truncated",), "DEEP"),
  ("dataset_info.json", ("splits",), GONE),
  ("dataset_info.json", ("splits",), {"name": "train"}),
  ("dataset_info.json", ("splits", 0), "train"),
  ("dataset_info.json", ("splits", 0, "name"), ["train"]),
  ("dataset_info.json", ("splits", 0, "shardLengths"), 7),
  ("dataset_info.json", ("splits", 0, "shardLengths"), ["-3"]),
  ("dataset_info.json", ("splits", 0, "shardLengths"), [1.5]),
  ("dataset_info.json", ("splits",), "DEEP"),
]


@pytest.mark.parametrize(("name", "path", "new"), HOSTILE_FILES)
def test_other_files(tmp_path, name, path, new):
  content, read = READERS[name]
  (tmp_path / name).write_text(written(changed(content, path, new)))
  with pytest.raises(DAMAGE, match=re.escape(name)) as raised:
    read(tmp_path)
  assert type(raised.value) in DAMAGE
  text = str(raised.value)
  assert len(text) < 1_500
  # What is no JSON at all has no keys; a file's name is one.
  keyed = [str(key) for key in path if isinstance(key, str)]
  if new not in ("DEEP", "HUGE") and name != "manifest.json":
    assert keyed[0] in text or repr(new) in text


@pytest.mark.parametrize(
  "name", ["config.json", "stage.json", "manifest.json", "dataset_info.json"]
)
def test_the_files_that_they_are_made_of_are_read(tmp_path, name):
  content, read = READERS[name]
  (tmp_path / name).write_text(json.dumps(content))
  assert read(tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_pipes_do_not_hang(tmp_path, name):
  os.mkfifo(tmp_path / name)
  if name == "dataset_info.json":  # as if it were not there
    assert READERS[name][1](tmp_path) == {}
    return
  if name == "stage.json":  # it is not there yet, for a stage that is not done
    assert (
      pretrain_report.read(
        types.SimpleNamespace(folder=lambda _: tmp_path), None
      )
      is None
    )
    return
  with pytest.raises(DAMAGE, match="pipe"):
    READERS[name][1](tmp_path)


@pytest.mark.parametrize("name", ["p.npy", "adapter_config.json", "checkpoint"])
def test_pipes_in_the_place_of_a_prompt(tmp_path, name):
  os.mkfifo(tmp_path / name)
  path = tmp_path / name if name == "p.npy" else tmp_path
  with pytest.raises(ValueError, match=r"pipe|expected"):
    load.load(path)


@pytest.mark.parametrize("state", [{}, {"runs": 3}, {"runs": None}])
def test_states_of_iterators(state):
  with pytest.raises(ValueError, match="no list of runs"):
    BankIterator([]).set_state(state)


def test_a_run_that_diverged_is_not_exported(tmp_path):
  """Its neighbours are: a bank ends although one of its runs is lost."""
  values = np.stack([VALUES[0], VALUES[0] * np.nan])
  placement = Placement(encoder_prefix=(0, 1, 2))
  runs = Runs(Delta(virtual=values), (placement, placement))
  lost = export.export(runs, 1, tmp_path / "b", export.Origin())
  assert not lost.paths
  assert "diverged: virtual has nan at [0, 0, 0]" in lost.notes[0]
  assert not (tmp_path / "b").exists()
  assert export.export(runs, 0, tmp_path / "a", export.Origin()).paths


@pytest.mark.parametrize("name", ["../victim", "/tmp/victim", "one"])
def test_nothing_is_exported_if_one_name_is_none(tmp_path, monkeypatch, name):
  """Conditions, which a method's settings name, give names too."""
  tuned = load.load(write_bundle(tmp_path / "b", BUNDLE))
  runs = Runs(
    Delta(virtual=np.concatenate([VALUES, VALUES])), tuned.runs.placements * 2
  )
  both = tuned._replace(
    runs=runs, names=("one", name), methods=tuned.methods * 2, tasks=("t", "t")
  )
  monkeypatch.setattr(load, "load", lambda *_: both)
  with pytest.raises(ValueError, match=r"can be a folder's|with the same name"):
    export.export_all("b", str(tmp_path / "out"))
  assert not (tmp_path / "out").exists()
  assert not (tmp_path / "victim").exists()
