"""The gin files for T5X, on top of its own."""

import importlib.util

import gin
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.checkpoints import prompts, restore
from prompt_tuning.core import embedded
from prompt_tuning.data import vocabulary

if importlib.util.find_spec("t5x") is None:
  pytest.skip("T5X is not installed: docs/t5x.md", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("default")

P = 6
CHECKPOINT = embedded.checkpoint(embedded.DEFAULT)


@pytest.fixture(scope="module")
def table():
  params = restore.open_checkpoint(CHECKPOINT).params
  return params["token_embedder/embedding"].read()


@pytest.fixture
def configured(vocabulary_file):
  """Build T5X's model by its gin files and ours: `configured(name, **macros)`.

  Also what the run's file would say.
  """

  def build(*names, **given):
    macros = {
      "DROPOUT_RATE": 0.0,
      "PROMPT_LENGTH": P,
      "VOCABULARY_FILE": vocabulary_file,
      "MIXTURE_OR_TASK_NAME": "taskless_super_glue_rte_v102",
      "MIXTURE_OR_TASK_MODULE": None,
      "INITIAL_CHECKPOINT_PATH": CHECKPOINT,
      **given,
    }
    gin.clear_config()
    gin.parse_config_files_and_bindings(
      [
        "t5x/examples/t5/t5_1_1/tiny.gin",
        *(f"prompt_tuning/t5x/configs/{name}.gin" for name in names),
      ],
      [f"{name} = {value!r}" for name, value in macros.items()],
    )
    return gin.get_configurable("t5x.models.EncoderDecoderModel")()

  yield build
  vocabulary.configure(None)


def test_tasks_that_seqio_knows_not_yet(configured, tmp_path, monkeypatch):
  """Of k shots, and of a user's own files, by their names as elsewhere."""
  import seqio

  name = "taskless_super_glue_rte_v102_k7_seed3"
  assert name not in seqio.TaskRegistry.names()
  configured("prompt", MIXTURE_OR_TASK_NAME=name)
  assert seqio.get_mixture_or_task(name).name == name
  (tmp_path / "train.jsonl").write_text('{"text": "red", "answer": "warm"}\n')
  (tmp_path / "tasks_on_files.py").write_text(
    "from prompt_tuning.data import custom\n"
    f"custom.declare('on_files', {{'train': '{tmp_path}/train.jsonl'}}, "
    "template='say: {text}', target_column='answer')\n"
  )
  monkeypatch.syspath_prepend(tmp_path)
  configured(
    "prompt",
    MIXTURE_OR_TASK_NAME="on_files_k1_seed0",
    MIXTURE_OR_TASK_MODULE="tasks_on_files",
  )
  task = seqio.get_mixture_or_task("on_files_k1_seed0")
  (row,) = task.get_dataset(None, "train", shuffle=False).as_numpy_iterator()
  assert row["inputs_pretokenized"] == b"say: red"
  with pytest.raises(ValueError, match=r"on_fils.*on_files"):
    configured("prompt", MIXTURE_OR_TASK_NAME="on_fils")


def first_prompt(model, width):
  return np.asarray(
    model.module.prompt_start(jax.random.key(0), (P, width), jnp.float32)
  )


def test_the_public_codes_settings(configured):
  from prompt_tuning.t5x import network, optimizer

  model = configured("prompt")
  assert isinstance(model.module, network.PromptedTransformer)
  assert model.module.prompt_length == P
  assert model.input_vocabulary == model.output_vocabulary
  assert isinstance(model.optimizer_def, optimizer.PromptOptimizer)
  settings = model.optimizer_def.optimizer.hyper_params
  assert settings.weight_decay_rate == 1e-5
  assert not settings.multiply_by_parameter_scale
  values = first_prompt(model, 400)
  assert 0 <= values.min() < 0.01
  assert 0.49 < values.max() < 0.5


def test_common_tokens(configured, table):
  values = first_prompt(
    configured("prompt", "from_sampled_vocab"), table.shape[1]
  )
  rows = {row.tobytes() for row in table[:5000]}
  assert all(row.tobytes() in rows for row in values)
  assert len(np.unique(values, axis=0)) == P


def test_class_labels(configured, table, vocabulary_file, tolerance):
  values = first_prompt(
    configured("prompt", "from_class_labels"), table.shape[1]
  )
  words = vocabulary.load(vocabulary_file)
  for row, label in zip(values, ("entailment", "not_entailment"), strict=False):
    np.testing.assert_allclose(
      row, table[words.encode(label)].mean(0), **tolerance["arithmetic"]
    )


@pytest.mark.parametrize(
  ("name", "is_parameter"), [("from_file", True), ("constant_prompt", False)]
)
def test_a_prompt_of_a_file(configured, tmp_path, name, is_parameter):
  values = np.random.default_rng(0).normal(size=(P, 8)).astype(np.float32)
  prompts.write_npy(tmp_path / "a.npy", values)
  model = configured("prompt", name, PROMPT_FILE=str(tmp_path / "a.npy"))
  np.testing.assert_array_equal(first_prompt(model, 8), values)
  assert model.module.prompt_is_parameter is is_parameter


@pytest.mark.parametrize(
  ("names", "draws"),
  [(("prompt",), True), (("prompt", "whole_checkpoint"), False)],
)
def test_what_is_restored(configured, names, draws):
  configured(*names)
  restoring = gin.get_configurable("t5x.utils.RestoreCheckpointConfig")("path")
  assert restoring.fallback_to_scratch is draws
  assert (restoring.assignment_map is not None) is draws
