"""Command lines of the original keep their meaning.

Formed from what its demos set (a base model, XXL on 32 devices, an evaluation),
with another name of the module and nothing else changed.
"""

import re

import pytest

from prompt_tuning.data import vocabulary
from prompt_tuning.launch import command, flags, original_files
from prompt_tuning.launch.gin_files import SearchPath, packaged_root
from prompt_tuning.train.classes import Classes
from prompt_tuning.train.perceptron import Perceptron

CONFIGS = "prompt_tuning/configs"
TASK = [
  "--gin.MIXTURE_OR_TASK_NAME='taskless_glue_sst2_v200_examples'",
  "--gin.MIXTURE_OR_TASK_MODULE='prompt_tuning.data.glue'",
  "--gin.TASK_FEATURE_LENGTHS={'inputs': 512, 'targets': 8}",
  "--gin.USE_CACHED_TASKS=False",
]
COMMON = ["--gin_search_paths=/t5x,/flaxformer,/prompt-tuning", *TASK]
BUCKET = "gs://t5-data/pretrained_models/t5x"


def train(size, *more):
  return [
    *(f"--gin_file={CONFIGS}/models/t5_1_1_{size}_prompt.gin",),
    *(f"--gin_file={CONFIGS}/prompts/from_class_labels.gin",),
    *(f"--gin_file={CONFIGS}/runs/prompt_finetune.gin", *COMMON),
    *("--gin.CLASS_LABELS=['positive', 'negative']",),
    *("--gin.MODEL_DIR='runs/sst2'", "--gin.TRAIN_STEPS=1_150_000"),
    "--gin.INITIAL_CHECKPOINT_PATH="
    f"'{BUCKET}/t5_1_1_lm100k_{size}/checkpoint_1100000'",
    *("--tfds_data_dir=tfds", "--alsologtostderr", *more),
  ]


_PARTITIONER = "--gin.partitioning.PjitPartitioner"
SUBMESH = f"{_PARTITIONER}.model_parallel_submesh=(4, 4, 1, 2)"
XXL = train("xxl", "--gin.BATCH_SIZE=32", SUBMESH)
EVAL = [
  f"--gin_file={CONFIGS}/models/t5_1_1_base_prompt.gin",
  f"--gin_file={CONFIGS}/runs/prompt_eval.gin",
  *COMMON,
  f"--gin.CHECKPOINT_PATH='{BUCKET}/t5_1_1_lm100k_base/checkpoint_1100000'",
  "--gin.EVAL_OUTPUT_DIR='out'",
  "--gin.utils.DatasetConfig.split='validation'",
  "--gin.utils.DatasetConfig.batch_size=128",
  "--gin.PROMPT_FILE='pretrained_prompts/t5_1_1_lm100k_base/sst2.npy'",
  "--tfds_data_dir=tfds",
  "--verbosity=1",
]


@pytest.fixture(autouse=True)
def _small_vocabulary(monkeypatch, invented_vocabulary):
  monkeypatch.setattr(vocabulary, "_configured", None)
  monkeypatch.setenv(vocabulary.ENVIRONMENT_VARIABLE, invented_vocabulary)


def configure(name, argv):
  return command.configure(name, flags.parse(name, argv, ""))


def test_the_demo_needs_no_change(caplog):
  job = configure("train", train("base"))
  assert not caplog.records
  (run,) = job.experiment.runs
  assert run.tuner(emb_dim=768).encoder_init.labels == ("positive", "negative")
  assert job.experiment.model.emb_dim == 768
  assert job.experiment.dataset.batch_size == 128
  assert job.duration.num_steps(1_100_000) == 50_000


def test_a_submesh_is_so_many_ways(caplog):
  """And brings the mesh of two axes, which T5X always has."""
  job = configure("train", XXL)
  assert (job.source.mesh.data, job.source.mesh.model) == (None, 32)
  assert job.experiment.dataset.batch_size == 32
  assert job.experiment.model.num_heads == 64
  (message,) = caplog.messages
  assert "model_parallel_submesh is T5X's name; here it is" in message
  assert message.endswith("MODEL_PARALLEL = 32.")


def test_the_evaluation_needs_no_change(caplog):
  job = configure("eval", EVAL)
  dataset = job.evaluation.dataset
  assert (dataset.split, dataset.batch_size) == ("validation", 128)
  assert job.prompt_file.endswith("sst2.npy")
  assert re.findall(r"here it is (\w+) = ", caplog.text) == [
    "EVAL_SPLIT",
    "BATCH_SIZE",
  ]


@pytest.mark.parametrize(
  ("setting", "read", "expected"),
  [
    ("train/utils.DatasetConfig.batch_size=16", "batch_size", 16),
    ("DatasetConfig.use_cached=True", "use_cached", True),
    ("train/utils.DatasetConfig.pack=True", "batching", "packed"),
    ("train/utils.DatasetConfig.split='validation'", "split", "validation"),
  ],
)
def test_settings_of_t5x_have_names_here(setting, read, expected):
  job = configure("train", [*train("base"), f"--gin.{setting}"])
  assert getattr(job.experiment.dataset, read) == expected


def test_other_settings_of_t5x():
  job = configure(
    "train",
    [
      *train("base"),
      "--gin.trainer.Trainer.num_microbatches=2",
      "--gin.utils.SaveCheckpointConfig.keep=3",
      "--gin.utils.create_learning_rate_scheduler.base_learning_rate=0.1",
      "--gin.partitioning.PjitPartitioner.num_partitions=1",
      "--gin.USE_HARDWARE_RNG=True",
    ],
  )
  assert job.experiment.num_microbatches == 2
  assert job.output.keep_checkpoints == 3
  assert job.experiment.runs[0].learning_rate == 0.1
  assert job.source.mesh.model == 1


def test_a_submesh_that_is_none_is_refused():
  bad = SUBMESH.replace("(4, 4, 1, 2)", "('a', 2)")
  with pytest.raises(ValueError, match="MODEL_PARALLEL is "):
    configure("train", [*train("base"), bad])


# Every one of the original's files, over its history: folder -> names.
SIZES = ("small", "base", "large", "xl", "xxl")
MODELS = "extended/models"
FILES = {
  "architectures": ["prompt_encoder_t5_1_1_flaxformer", "t5_1_1_flaxformer"],
  "extended/architectures": [
    "ia3_t5_1_1_flaxformer",
    "multi_task_factorized_prompt_encoder_t5_1_1_flaxformer",
    "per_layer_prompt_encoder_t5_1_1_flaxformer",
  ],
  MODELS: [
    *("ia3_t5_1_1", "mt5_per_layer_prompt", "t5_1_1_per_layer_prompt"),
    *("multi_factorized_task_mt5_base_prompt", "multi_task_t5_1_1_prompt"),
    *(f"multi_task_t5_1_1_{size}_prompt" for size in SIZES),
    *(f"wayward_t5_1_1_{size}prompt" for size in ("", "base_", "large_")),
  ],
  "extended/runs": [
    *("ia3_finetune", "multitask_prompt_finetune"),
    "multitask_factorized_prompt_finetune",
  ],
  "extended/test": [
    f"{does}multi_task_t5_1_1_tiny_prompt" for does in ("", "load_", "train_")
  ],
  "models/decoding": ["beam_search", "nucleus_sampling"],
  "models": [
    *("mt5_prompt", "t5_1_1_prompt"),
    *(f"mt5_{size}_prompt" for size in (*SIZES, "80b", "150b")),
    *(f"t5_1_1_{size}_prompt" for size in SIZES),
  ],
  "models/sizes": [*SIZES, "80b", "150b"],
  "prompts": [
    *("from_file", "from_class_labels", "from_class_labels_numpy"),
    *("from_sampled_vocab", "from_sampled_vocab_numpy"),
  ],
  "runs": ["prompt_eval", "prompt_finetune", "prompt_infer"],
  "test": [
    *("t5_1_1_tiny", "t5_1_1_tiny_prompt", "train_t5_1_1_tiny"),
    *("load_t5_1_1_tiny_prompt", "train_t5_1_1_tiny_prompt"),
  ],
}
NAMES = [
  f"{CONFIGS}/{folder}/{name}.gin"
  for folder, names in FILES.items()
  for name in names
]
PERCEPTRON = "prompt_tuning/extended/perceptron/configs/models"
NAMES += [
  f"{PERCEPTRON}/{loss}_t5_1_1_prompt.gin"
  for loss in ("perceptron", "cross_entropy")
]


def test_every_file_of_the_original_has_one_here():
  paths = [SearchPath().find(name) for name in NAMES]
  assert all(path.is_relative_to(packaged_root()) for path in paths)
  assert len(NAMES) == 62


def test_what_nobody_had_is_still_an_error():
  name = f"{CONFIGS}/../../runs/prompt_finetune.gin"
  assert original_files.file_of(name, packaged_root()) is None
  with pytest.raises(FileNotFoundError, match=r"models/mt5_80b_prompt\.gin"):
    SearchPath().find(f"{CONFIGS}/models/mt5_81b_prompt.gin")


TINY = [
  f"--gin_file={CONFIGS}/test/train_t5_1_1_tiny_prompt.gin",
  "--gin.MODEL_DIR='tiny'",
  "--gin.INITIAL_CHECKPOINT_PATH='checkpoint_3'",
]


def test_renamed_files_say_so(caplog):
  job = configure("train", TINY)
  assert job.experiment.model.emb_dim == 4
  assert job.duration.num_steps(0) == 3
  assert "train_t5_1_1_tiny_prompt.gin is runs/tiny_prompt_fin" in caplog.text


WAYWARD = "--gin.TASK_STRING='is the film good or bad'"
OWN = [
  *COMMON,
  *("--gin.MODEL_DIR='m'", "--gin.TRAIN_STEPS=1_150_000"),
  "--gin.INITIAL_CHECKPOINT_PATH='checkpoint_1100000'",
]


def test_a_wayward_prompt_is_as_long_as_its_text():
  model = f"--gin_file={CONFIGS}/{MODELS}/wayward_t5_1_1_base_prompt.gin"
  run = f"--gin_file={CONFIGS}/runs/prompt_finetune.gin"
  job = configure("train", [model, run, *OWN, WAYWARD])
  (method,) = job.experiment.tuners
  words = vocabulary.load().encode("is the film good or bad")
  assert (method.length, method.pull) == (len(words), 0.01)


@pytest.mark.parametrize(
  ("loss", "expected"),
  [("perceptron", Perceptron), ("cross_entropy", Classes)],
)
def test_losses_over_label_words(loss, expected):
  """Scores are means over a word's pieces, and rank too."""
  job = configure(
    "train",
    [
      f"--gin_file={PERCEPTRON}/{loss}_t5_1_1_prompt.gin",
      f"--gin_file={CONFIGS}/models/sizes/base.gin",
      f"--gin_file={CONFIGS}/runs/prompt_finetune.gin",
      *OWN,
      "--gin.MIXTURE_OR_TASK_NAME='glue_sst2_v200_perceptron_train'",
    ],
  )
  chosen = job.experiment.objective
  assert type(chosen) is expected
  assert chosen.scorer.length == "mean"
  assert getattr(chosen, "margin", 0.2) == 0.2
  assert job.evaluations.evaluation.ways == ("rank",)


@pytest.mark.parametrize(
  ("model", "run", "title", "rate"),
  [
    ("ia3_t5_1_1", "extended/runs/ia3_finetune", "(IA)3", 3e-3),
    ("t5_1_1_per_layer_prompt", "runs/prompt_finetune", "deep prompts", 0.3),
    (
      "multi_task_t5_1_1_prompt",
      "extended/runs/multitask_prompt_finetune",
      "multitask prompts by sum",
      0.3,
    ),
  ],
)
def test_extended_models(model, run, title, rate):
  job = configure(
    "train",
    [
      f"--gin_file={CONFIGS}/{MODELS}/{model}.gin",
      f"--gin_file={CONFIGS}/models/sizes/large.gin",
      f"--gin_file={CONFIGS}/{run}.gin",
      *OWN,
    ],
  )
  (one,) = job.experiment.runs
  assert job.experiment.model.num_heads == 16
  assert one.learning_rate == rate
  assert type(job.experiment.tuners[0]).title == title
