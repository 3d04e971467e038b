"""Prediction as StableHLO: jax alone gives the answers of the API."""

import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pytest

import prompt_tuning
from prompt_tuning.core import embedded
from prompt_tuning.data import templated
from prompt_tuning.data import vocabulary as vocabularies
from prompt_tuning.infer.runs import Runs
from prompt_tuning.jobs import load, serving
from prompt_tuning.launch import main

TEXTS = ("hot loud old", "small loud cold")
INPUTS, LENGTH = 12, 4
# What the card says, and nothing of this project.
CALLER = """
import json, sys
import jax.export
import numpy as np

with open("predict.stablehlo", "rb") as file:
  predict = jax.export.deserialize(bytearray(file.read()))
model, bank = dict(np.load("model.npz")), dict(np.load("bank.npz"))
texts, runs = (np.array(part, np.int32) for part in json.loads(sys.argv[1]))
print(json.dumps(predict.call(model, bank, texts, runs).tolist()))
other = {name: np.roll(array, 1, axis=0) for name, array in bank.items()}
print(json.dumps(predict.call(model, other, texts, runs).tolist()))
assert not [name for name in sys.modules if name.startswith("prompt_tuning")]
"""


@pytest.fixture(scope="module")
def prompts():
  """Instructions in words, as vectors: prompts of different lengths."""
  model = prompt_tuning.load_model()
  table = np.asarray(model.predictor.params["token_embedder"]["embedding"])
  encode = vocabularies.load(embedded.DEFAULT).encode
  words = {"short": "last word:", "long": "opposite of the first word:"}
  vectors = {name: table[encode(text)] for name, text in words.items()}
  assert len({len(array) for array in vectors.values()}) == 2
  return model.with_tuned(vectors)


@pytest.fixture(scope="module")
def folder(prompts, tmp_path_factory):
  made = tmp_path_factory.mktemp("served")
  runs, config = prompts.predictor.runs, prompts.predictor.config
  weights = {
    name: np.asarray(array)
    for name, array in serving.tree.flatten(prompts.predictor.params).items()
  }
  bank = serving.bank_of(runs, config)
  exported = serving.program(config, weights, bank, 4, INPUTS, LENGTH)
  (made / "predict.stablehlo").write_bytes(bytes(exported.serialize()))
  np.savez(made / "model.npz", **weights)
  np.savez(made / "bank.npz", **bank)
  return made


def test_jax_alone_answers_as_the_api(prompts, folder):
  vocabulary = vocabularies.load(embedded.DEFAULT)
  rows = np.zeros((4, INPUTS), np.int32)
  for row, text in enumerate((*TEXTS, *TEXTS)):
    ids = [*vocabulary.encode(text), 1]
    rows[row, : len(ids)] = ids
  runs = [0, 0, 1, 1]
  asked = json.dumps([rows.tolist(), runs])
  done = subprocess.run(
    [sys.executable, "-c", CALLER, asked],
    cwd=folder,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  given, other = map(json.loads, done.stdout.splitlines())
  names = ["short", "short", "long", "long"]
  expected = prompts.predict([*TEXTS, *TEXTS], names, length=LENGTH)
  decoded = [vocabulary.decode([i for i in ids if i > 1]) for ids in given]
  assert decoded == expected
  assert expected[:3] == ["old", "cold", "cold"]
  # The bank is an argument: with the runs in turn, so are the answers.
  assert other == [*given[2:], *given[:2]]
  assert given[:2] != given[2:]


def test_by_command(prompts, tmp_path, capsys, monkeypatch):
  prompt = tmp_path / "prompt.npy"
  np.save(prompt, np.ones((3, 96), np.float32))
  argv = ["export", str(prompt), str(tmp_path / "out"), "--to", "stablehlo"]
  assert main.main(argv) == 2
  assert "--model CHECKPOINT" in capsys.readouterr().err
  argv += ["--model", embedded.DEFAULT, "--rows=1", "--inputs=8", "--length=2"]
  assert main.main(argv) == 0
  names = {path.name for path in (tmp_path / "out").iterdir()}
  assert names == {
    *("predict.stablehlo", "model.npz", "bank.npz"),
    *("signature.json", "README.md"),
  }
  signature = json.loads((tmp_path / "out/signature.json").read_text())
  assert (signature["rows"], signature["inputs"]) == (1, 8)
  card = (tmp_path / "out/README.md").read_text()
  (program,) = re.findall(r"^```python\n(.*?)^```", card, re.M | re.S)
  with monkeypatch.context() as in_folder:
    in_folder.chdir(tmp_path / "out")
    made: dict[str, object] = {}
    exec(program, made)
  assert made["answers"].shape == (1, 2)
  assert main.main(argv) == 2
  assert "exists already" in capsys.readouterr().err


def test_tokens_behind_the_text_are_refused(prompts):
  runs = prompts.predictor.runs
  placement = runs.placements[0]
  behind = dataclasses.replace(
    placement, encoder_prefix=(), encoder_suffix=placement.encoder_prefix
  )
  other = dataclasses.replace(runs, placements=(behind, *runs.placements[1:]))
  with pytest.raises(ValueError, match="do not stand before the text"):
    serving.bank_of(other, prompts.predictor.config)


@pytest.mark.parametrize("name", ["head_rows", "word_weights", "log_weight"])
def test_answers_from_behind_the_model_are_refused(prompts, name):
  config = prompts.predictor.config
  shape = {"head_rows": (2, 3, config.emb_dim), "log_weight": (2,)}
  array = np.zeros(shape.get(name, (2, 3, 4)), np.float32)
  runs = prompts.predictor.runs
  delta = dataclasses.replace(runs.delta, **{name: array})
  with pytest.raises(ValueError, match=f"The runs have {name}"):
    serving.bank_of(dataclasses.replace(runs, delta=delta), config)


@pytest.mark.usefixtures("own_tasks")
def test_tokens_of_a_template_are_refused():
  """By what a bundle says, whose tasks nobody declares where it is read."""
  names = ("soft", "hard", "mixed", None)
  tasks = {"old": 1, "alien": {"content": {"template": "{text}"}}}
  for name, soft in (("soft", '{"soft": 2} '), ("hard", "")):
    task = templated.declare(
      name,
      "taskless_super_glue_rte_v102",
      template=f'{soft}{{"placeholder": "text_a"}} {{"mask"}}',
      fields={"text_a": "premise"},
      label_words={"entailment": ["yes"], "not_entailment": ["no"]},
    )
    assert templated.has_soft(name) == bool(soft)
    tasks[name] = task.identity()
  assert not templated.has_soft("skill_last")
  assert load._in_template({}, names) == (False,) * 4
  found = load._in_template({"tasks": tasks}, names)
  assert found == (True, False, True, True)
  tuned = load.PLAIN._replace(tasks=names)
  serving._insist_on_place(tuned, "a")
  tuned = tuned._replace(runs=Runs(in_template=found))
  with pytest.raises(ValueError, match="template of soft puts virtual"):
    serving._insist_on_place(tuned, "a")
