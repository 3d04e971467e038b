"""A tiny backbone on disk, a task of invented rows, and a clean gin."""

import json
import pathlib
import random

import gin
import pytest
from sentencepiece import sentencepiece_model_pb2 as pb2

from prompt_tuning.checkpoints import restore, t5x_writer
from prompt_tuning.core import embedded
from prompt_tuning.launch import main
from prompt_tuning.models.t5 import config as t5_config

STEP = 1_100_000


@pytest.fixture(autouse=True)
def clean_gin():
  """Configurations are global to a process: none may leak."""
  yield
  gin.clear_config()


@pytest.fixture(scope="session")
def vocabulary_file():
  """The vocabulary of the embedded models, which any clone has."""
  return embedded.vocabulary(embedded.DEFAULT)


@pytest.fixture(scope="session")
def other_vocabulary_file(vocabulary_file, tmp_path_factory):
  """One of the same size, in which an id is another word."""
  model = pb2.ModelProto.FromString(pathlib.Path(vocabulary_file).read_bytes())
  (piece,) = (piece for piece in model.pieces if piece.piece == "▁the")
  piece.piece = "▁other_than_it"
  path = tmp_path_factory.mktemp("other") / "other.model"
  path.write_bytes(model.SerializeToString())
  return path


@pytest.fixture(scope="session")
def published_vocabulary_file(shared_data):
  """T5's own."""
  return str(shared_data / "t5_vocab" / "sentencepiece.model")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory, random_params):
  """A T5 1.1 of the tiny size with random weights, as T5X writes it."""
  path = tmp_path_factory.mktemp("model") / f"checkpoint_{STEP}"
  params = random_params(t5_config.get("t5_1_1_tiny"))
  t5x_writer.write_t5x(path, restore.leaves_of(params), step=STEP)
  return str(path)


@pytest.fixture(scope="session")
def task_gin(tmp_path_factory):
  """A gin file that declares a task: does the text speak of a cat?"""
  folder = tmp_path_factory.mktemp("task")
  rng = random.Random(0)
  words = ["red", "green", "small", "large", "fast", "cat", "dog", "bird"]
  for split, count in (("train", 24), ("validation", 10)):
    rows = []
    for _ in range(count):
      text = " ".join(rng.choices(words, k=rng.randint(3, 8)))
      label = "yes" if "cat" in text else "no"
      rows.append(json.dumps({"text": text, "label": label}))
    (folder / f"{split}.jsonl").write_text("\n".join(rows))
  path = folder / "task.gin"
  path.write_text(f"""
MIXTURE_OR_TASK_NAME = @data.custom_task()
data.custom_task:
  name = "speaks_of_a_cat"
  files = {{
    "train": "{folder}/train.jsonl",
    "validation": "{folder}/validation.jsonl",
  }}
  template = "text: {{text}}"
  target_column = "label"
  label_words = ("no", "yes")
""")
  return str(path)


@pytest.fixture(scope="session")
def token_cache(tmp_path_factory):
  """Tokens of the task, made once."""
  return str(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="session")
def common_flags(task_gin, vocabulary_file, token_cache):
  """What every command on the tiny model has in common, without run file."""

  def flags(run, *more):
    return [
      "--gin_file=models/t5_1_1_tiny.gin",
      *more,
      f"--gin_file=runs/{run}.gin",
      "--gin_file=meshes/single.gin",
      f"--gin_file={task_gin}",
      f"--gin.VOCABULARY_FILE='{vocabulary_file}'",
      f"--gin.TOKEN_CACHE_DIR='{token_cache}'",
      "--gin.ACTIVATION_DTYPE='float32'",
      "--gin.RESTORE_DTYPE='float32'",
    ]

  return flags


@pytest.fixture(scope="session")
def train_flags(common_flags, tiny_checkpoint):
  """A short training of the tiny model: `train_flags(MODEL_DIR, *more)`."""

  def flags(
    model_dir,
    *more,
    run="prompt_finetune",
    prompt=("--gin_file=prompts/from_class_labels.gin",),
  ):
    return [
      *common_flags(run, *prompt),
      f"--gin.MODEL_DIR='{model_dir}'",
      f"--gin.INITIAL_CHECKPOINT_PATH='{tiny_checkpoint}'",
      "--gin.TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 4}",
      f"--gin.TRAIN_STEPS={STEP + 4}",
      "--gin.BATCH_SIZE=4",
      "--gin.BATCHING='fixed'",
      "--gin.EVAL_PERIOD=2",
      "--gin.EVAL_STEPS=0",
      "--gin.EVALUATE_BY='rank'",
      "--gin.EVALUATOR_NUM_EXAMPLES=4",
      "--gin.LOG_PERIOD=2",
      "--gin.train.progress_bar=False",
      "--gin.train.tensorboard=False",
      *more,
    ]

  return flags


@pytest.fixture(scope="session")
def finished(tmp_path_factory, train_flags):
  """A bank of two seeds, trained to its end with all controls."""
  folder = tmp_path_factory.mktemp("finished") / "run"
  more = ("--gin.SEEDS=(0, 1)", "--gin.CONTROLS=True", "--gin.EVAL_STEPS=20")
  flags = train_flags(folder, *more)
  assert main.main(["train", *flags]) == 0
  return folder
