"""Every gin file of the package resolves, and the main ones are pinned.

`python -m tests.launch.test_gin_families` writes the golden files anew; review
the difference.
"""

import dataclasses
import math
import os
import pathlib
import re
import tempfile

import gin
import pytest

from prompt_tuning.data import vocabulary, vocabulary_training
from prompt_tuning.jobs import recipes
from prompt_tuning.launch import command, configurables, flags, gin_config
from prompt_tuning.launch.gin_files import SearchPath, packaged_root
from prompt_tuning.models.t5 import config as t5_config
from prompt_tuning.tuners import discovery, initializers
from tests.invented_corpus import VOCABULARY_SIZE, documents

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "gin"
NAMES = [name for name, _ in SearchPath().packaged()]
pytestmark = pytest.mark.usefixtures("own_tasks")

LONGEST_METHOD_FILE = 15
SHORT = ("methods", "prompts", "optimizers", "meshes", "contexts", "objectives")

# Whatever any file requires, for those that declare it.
VALUES = {
  "CHECKPOINT_PATH": "'model/checkpoint_1100000'",
  "CORPORA": "(@corpora.Text(),)",
  "EVAL_OUTPUT_DIR": "'out'",
  "INFER_OUTPUT_DIR": "'out'",
  "INITIAL_CHECKPOINT_PATH": "'model/checkpoint_1100000'",
  "KNOWPROMPT_OBJECT_TYPES": "('city', 'country')",
  "KNOWPROMPT_SUBJECT_TYPES": "{'person': 3, 'city': 1}",
  "LM_ADAPTATION_STEPS": "100",
  "MIXTURE_OR_TASK_NAME": "'taskless_super_glue_rte_v102'",
  "MODEL_DIR": "'runs/1'",
  "MODEL_FAMILY": "'t5_1_1'",
  "MODEL_PARALLEL": "4",
  "MODEL_SIZE": "'small'",
  "NUM_SLICES": "2",
  "PPT_TEXT": "{'train': 'a.jsonl', 'validation': 'b.jsonl'}",
  "PROMPT_FILE": "'prompt.npy'",
  "PROMPT_TEXT": "'Does one follow from the other?'",
  "SPAN_CORRUPTION_STEPS": "200",
  "TASK_FEATURE_LENGTHS": "{'inputs': 512, 'targets': 8}",
  "TASK_STRING": "'Does one follow from the other?'",
  "TASK_FILES": "{'train': 'a.jsonl', 'validation': 'b.jsonl'}",
  "TRAIN_STEPS": "1_150_000",
}
# What a file needs before and after it to make a whole configuration.
BASE = "models/t5_1_1_small_prompt.gin"
RUN = "runs/prompt_finetune.gin"

DEMO = [
  "--gin_search_paths=/some/where,/else/where",
  "--gin_file=models/t5_1_1_base_prompt.gin",
  "--gin_file=prompts/from_class_labels.gin",
  "--gin_file=runs/prompt_finetune.gin",
  "--gin.CLASS_LABELS=['positive', 'negative']",
  "--gin.MODEL_DIR='runs/sst2'",
  "--gin.MIXTURE_OR_TASK_NAME='taskless_glue_sst2_v200_examples'",
  "--gin.MIXTURE_OR_TASK_MODULE='prompt_tuning.data.glue'",
  "--gin.TASK_FEATURE_LENGTHS={'inputs': 512, 'targets': 8}",
  "--gin.INITIAL_CHECKPOINT_PATH='t5_1_1_lm100k_base/checkpoint_1100000'",
  "--gin.TRAIN_STEPS=1_150_000",
  "--gin.USE_CACHED_TASKS=False",
  "--tfds_data_dir=tfds",
]
_RTE = "--gin.MIXTURE_OR_TASK_NAME='taskless_super_glue_rte_v102'"
_XXL = "--gin_file=models/t5_1_1_xxl.gin"
# Command, command line.
MAIN = {
  "sst2_demo": ("train", DEMO),
  "sst2_demo_xxl": (
    "train",
    [
      *(flag.replace("_base_", "_xxl_") for flag in DEMO),
      "--gin_file=meshes/data_model.gin",
      "--gin.MODEL_PARALLEL=32",
      "--gin.BATCH_SIZE=32",
    ],
  ),
  "paper": (
    "train",
    [
      _XXL,
      "--gin_file=runs/paper.gin",
      _RTE,
      "--gin.MODEL_DIR='runs/rte'",
      "--gin.TASK_FEATURE_LENGTHS={'inputs': 512, 'targets': 8}",
      "--gin.INITIAL_CHECKPOINT_PATH='model/checkpoint_1100000'",
    ],
  ),
  "model_tuning": (
    "train",
    [
      "--gin_file=models/t5_1_1_small.gin",
      "--gin_file=runs/model_tuning.gin",
      _RTE,
      "--gin.MODEL_DIR='runs/rte_model'",
      "--gin.TASK_FEATURE_LENGTHS={'inputs': 512, 'targets': 8}",
      "--gin.INITIAL_CHECKPOINT_PATH='model/checkpoint_1100000'",
      "--gin.TRAIN_STEPS=1_130_000",
    ],
  ),
  "prompt_eval": (
    "eval",
    [
      "--gin_file=models/mt5_xl.gin",
      "--gin_file=models/decoding/beam_search.gin",
      "--gin_file=runs/prompt_eval.gin",
      _RTE,
      "--gin.CHECKPOINT_PATH='model/checkpoint_1100000'",
      "--gin.PROMPT_FILE=('a.npy', 'b.npy')",
      "--gin.EVAL_OUTPUT_DIR='out'",
    ],
  ),
  "prompt_infer": (
    "infer",
    [
      "--gin_file=models/t5_1_0_11b.gin",
      "--gin_file=models/decoding/nucleus_sampling.gin",
      "--gin_file=runs/prompt_infer.gin",
      "--gin_file=meshes/fully_sharded.gin",
      "--gin.MODEL_PARALLEL=4",
      "--gin.CHECKPOINT_PATH='model/checkpoint_1100000'",
      "--gin.PROMPT_FILE={'cb': 'cb.npy', 'rte': 'rte.npy'}",
      "--gin.INPUT_FILE='questions.jsonl'",
      "--gin.INFER_OUTPUT_DIR='out'",
    ],
  ),
  "pretrain": (
    "pretrain",
    [
      "--gin_file=models/ladder_1.gin",
      "--gin_file=runs/pretrain.gin",
      "--gin.MODEL_DIR='runs/ladder_1'",
      "--gin.CORPORA=(@corpora.Text(), @corpora.Skills())",
      "--gin.corpora.Text.name='novels'",
      "--gin.corpora.Text.files={'train': 'a.jsonl', 'validation': 'b.jsonl'}",
      "--gin.corpora.Skills.count=1000",
      "--gin.SPAN_CORRUPTION_STEPS=2000",
      "--gin.LM_ADAPTATION_STEPS=1000",
    ],
  ),
}


@pytest.fixture(autouse=True)
def _small_vocabulary(monkeypatch, invented_vocabulary):
  """The one of the environment: no configuration here names one."""
  monkeypatch.setattr(vocabulary, "_configured", None)
  monkeypatch.setenv(vocabulary.ENVIRONMENT_VARIABLE, invented_vocabulary)


def configure(name, argv):
  return command.configure(name, flags.parse(name, argv, ""))


def whole(files, needed=()):
  """Load files with a value for every macro that they require."""
  configurables.register()
  known = {**configurables.KNOWN, **configurables.register_methods()}
  needed = list(needed)
  try:
    gin_config.load(files, needed, known)
  except gin_config.ConfigError as error:
    for fault in error.faults:
      name, _, rest = fault.partition(" needs a value")
      assert rest, fault
      needed.append(f"{name} = {VALUES[name]}")
    gin_config.load(files, needed, known)


def context_of(name):
  """Say which files make a whole configuration with this one."""
  family = name.split("/")[0]
  if name.startswith("models/decoding/"):
    return [BASE, name, "runs/prompt_eval.gin"]
  if name.startswith("models/sizes/rung"):
    return ["models/ladder_prompt.gin", name, RUN]
  if name in ("models/ladder.gin", "models/ladder_prompt.gin"):
    return [BASE, name, "models/sizes/rung1.gin", RUN]
  if name in ("models/sizes/80b.gin", "models/sizes/150b.gin"):
    return ["models/mt5_prompt.gin", name, RUN]
  if name in ("models/sizes/3b.gin", "models/sizes/11b.gin"):
    return ["models/t5_1_0_prompt.gin", name, RUN]
  if name.startswith("models/"):
    return [BASE, name, RUN]
  if name == "runs/pretrain.gin":
    return ["models/ladder_1.gin", name]
  if family == "runs":
    prompt = [] if "model_tuning" in name else ["prompts/uniform_paper.gin"]
    return ["models/t5_1_1_small.gin", *prompt, name]
  if family == "methods":
    return ["models/t5_1_1_small.gin", name, "runs/finetune.gin"]
  if name == "prompts/prompt.gin":  # its init is what the others add
    return ["models/t5_1_1_small.gin", "prompts/from_text.gin", RUN]
  return [BASE, name, RUN]


def job_of(name):
  """Say which command a context is for, and what else it needs."""
  if name in ("runs/prompt_infer.gin", "runs/prompt_score.gin"):
    return "infer", ["INPUT_FILE = 'a.jsonl'"]
  if name == "runs/prompt_eval.gin" or name.startswith("models/decoding/"):
    return "eval", []
  if name == "runs/pretrain.gin":
    text = {"name": "t", "files": {"train": "a.jsonl"}}
    return "pretrain", [f"corpora.Text.{k} = {v!r}" for k, v in text.items()]
  return "train", []


@pytest.mark.parametrize("name", NAMES)
def test_every_file_resolves(name, tmp_path, tiny_checkpoint, monkeypatch):
  for file in ("a", "b"):
    row = '{"premise": "a", "hypothesis": "b", "label": "no"}\n'
    (tmp_path / f"{file}.jsonl").write_text(row)
  (tmp_path / "model").mkdir()
  (tmp_path / "model" / "checkpoint_1100000").symlink_to(tiny_checkpoint)
  monkeypatch.chdir(tmp_path)
  command_name, needed = job_of(name)
  whole(context_of(name), needed)
  gin.get_configurable(command_name)()


@pytest.mark.parametrize(
  "name",
  [n for n in NAMES if n.split("/")[0] in SHORT],
)
def test_method_files_are_short(name):
  lines = (packaged_root() / name).read_text().splitlines()
  assert len(lines) <= LONGEST_METHOD_FILE


def test_every_published_size_has_its_files():
  for size in t5_config.SIZES:
    for name in (f"models/{size}.gin", f"models/{size}_prompt.gin"):
      whole([name, "prompts/from_sampled_vocab.gin", RUN])
      job = gin.get_configurable("train")()
      layers = {}
      if size in ("mt5_80b", "mt5_150b"):
        layers = {"scan_layers": True, "remat_policy": "full"}
      dtype = job.experiment.model.dtype
      shape = t5_config.get(size, dropout_rate=0.1, dtype=dtype, **layers)
      assert job.experiment.model == shape
      is_small = size.startswith("ladder")
      assert job.experiment.model.dtype == (
        "float32" if is_small else "bfloat16"
      )


@pytest.mark.parametrize("name", MAIN)
def test_operative_config_is_the_golden_one(name):
  configure(*MAIN[name])
  assert gin_config.operative_text() == (GOLDEN / f"{name}.gin").read_text()


@pytest.mark.parametrize("name", MAIN)
def test_golden_configs_can_be_given_as_gin_files(name):
  """A run is repeated from what it wrote down."""
  command_name = MAIN[name][0]
  job = configure(*MAIN[name])
  again = configure(command_name, [f"--gin_file={GOLDEN / name}.gin"])
  texts = [re.sub(r" at 0x\w+", "", str(which)) for which in (again, job)]
  assert texts[0] == texts[1]


@pytest.mark.parametrize("name", MAIN)
def test_what_a_command_writes_down_can_be_given_as_a_gin_file(name, tmp_path):
  """Macros that nobody uses are left out: RANDOM_SEED where SEEDS are given."""
  command_name, argv = MAIN[name]
  more = ["--gin.SEEDS=(0, 1)"] if command_name == "train" else []
  job = configure(command_name, [*argv, *more])
  texts = gin_config.texts()
  assert "RANDOM_SEED" not in texts["config.gin"] or not more
  for text in texts.values():
    path = tmp_path / "config.gin"
    path.write_text(text)
    again = configure(command_name, [f"--gin_file={path}"])
    assert gin_config.operative_text() == texts["operative_config.gin"]
    written = [re.sub(r" at 0x\w+", "", str(which)) for which in (again, job)]
    assert written[0] == written[1]


def test_the_demo_means_what_it_meant():
  """features.md 2.7: the settings in force when the original's demo runs."""
  job = configure("train", DEMO)
  (run,) = job.experiment.runs
  assert run.learning_rate == 0.3
  assert job.duration.num_steps(1_100_000) == 50_000
  assert job.experiment.dataset.batch_size == 128
  assert job.experiment.dataset.lengths == {"inputs": 512, "targets": 8}
  assert job.experiment.model == t5_config.get(
    "t5_1_1_base", dropout_rate=0.1, dtype=job.experiment.model.dtype
  )
  tuner = run.tuner(emb_dim=768)
  assert (tuner.encoder_length, tuner.encoder_position) == (100, "before")
  assert tuner.encoder_init.labels == ("positive", "negative")
  assert tuner.encoder_init.fallback.population == 5_000
  assert job.evaluations.eval_period == 1_000
  assert job.output.checkpoint_period == 1_000
  assert job.experiment.objective.z_loss == 1e-4
  assert job.experiment.objective.label_smoothing == 0
  assert job.experiment.objective.loss_normalizing_factor is None
  optimizer = job.experiment.run_optimizer
  assert (optimizer.decay_rate, optimizer.weight_decay) == (0.8, 1e-5)
  assert not optimizer.multiply_by_parameter_scale
  assert job.evaluations.evaluation.decoder.num_decodes == 1
  assert job.evaluations.evaluation.dataset.lengths == {
    "inputs": None,
    "targets": None,
  }
  assert job.source.restore_dtype == "float32"


def test_pretraining_is_the_papers_recipe(tolerance):
  """numbers.md: span corruption as T5's, then the LM objective."""
  job = configure(*MAIN["pretrain"])
  shape = t5_config.get("ladder_1", dtype=job.model.dtype, dropout_rate=0.0)
  assert job.model == shape
  spans, adaptation = job.stages
  # The same that `compare` and Python tune whole models with.
  assert spans.optimizer == recipes.RELATIVE_ADAFACTOR
  assert adaptation.optimizer == recipes.RELATIVE_ADAFACTOR
  for stage, name, objective, steps in (
    (spans, "span_corruption", "span_corruption", 2_000),
    (adaptation, "lm_adaptation", "prefix_lm", 1_000),
  ):
    assert (stage.name, stage.denoising.objective) == (name, objective)
    assert stage.steps == steps
    # The cosine's cycle is the stage; it starts after 100 steps of warm-up.
    left = 0.5 * (1 + math.cos(math.pi * (steps - 100) / steps))
    assert float(stage.schedule(steps, 1.0)) == pytest.approx(
      left, rel=tolerance["still"]["rtol"]
    )
    assert float(stage.schedule(100, 1.0)) == pytest.approx(1.0)
  assert (spans.denoising.noise_density, spans.denoising.mean_span) == (0.15, 3)
  assert job.objective.loss_normalizing_factor == "NUM_REAL_TARGET_TOKENS"
  assert [source.name for source in job.corpora] == ["novels", "skills"]


def test_the_paper_run_is_the_papers():
  """numbers.md 8 and 13."""
  job = configure(*MAIN["paper"])
  for restored_step in (0, 1_100_000):
    assert job.duration.num_steps(restored_step) == 30_000
  assert job.experiment.dataset.batch_size == 32
  assert [run.seed for run in job.experiment.runs] == [0, 1, 2]
  assert {run.learning_rate for run in job.experiment.runs} == {0.3}
  init = job.experiment.runs[0].tuner(emb_dim=8).encoder_init
  assert init.labels is None, "the task's own label words"


def test_where_a_prompt_stands():
  files = ["models/t5_1_1_small.gin", "prompts/uniform_paper.gin"]
  expected = {
    "prompts/decoder.gin": (0, 100, "before"),
    "prompts/both.gin": (100, 100, "before"),
    "prompts/suffix.gin": (100, 0, "after"),
    "prompts/after_first.gin": (100, 0, "after_first"),
  }
  for name, (encoder, decoder, position) in expected.items():
    whole([*files, name, RUN])
    prompt = gin.get_configurable("train")().experiment.runs[0].tuner(emb_dim=4)
    assert (prompt.encoder_length, prompt.decoder_length) == (encoder, decoder)
    assert prompt.encoder_position == position
    if decoder:
      assert prompt.decoder_init.high == 0.5


def test_a_bank_of_initialisers_and_tasks():
  """Several of anything train side by side; scopes tell tuners apart."""
  text = [
    "TUNER = (@labels/tuners.Prompt, @random/tuners.Prompt)",
    "labels/tuners.Prompt.encoder_init = @tuners.ClassLabels()",
    "random/tuners.Prompt.encoder_init = @uniform_public/tuners.Uniform()",
    "MIXTURE_OR_TASK_NAME = ('taskless_super_glue_rte_v102', "
    "'taskless_super_glue_cb_v102')",
    "LEARNING_RATES = (0.3, 0.1)",
  ]
  whole([BASE, "prompts/from_class_labels.gin", RUN], text)
  job = gin.get_configurable("train")()
  assert len(job.experiment.runs) == 8
  inits = [type(tuner.encoder_init).__name__ for tuner in job.experiment.tuners]
  assert inits == ["ClassLabels"] * 2 + ["Uniform"] * 2 + inits[:4]
  assert {tuner.encoder_length for tuner in job.experiment.tuners} == {100}


def write_golden():
  GOLDEN.mkdir(parents=True, exist_ok=True)
  with tempfile.NamedTemporaryFile() as file:
    vocabulary_training.train(documents(60, 2), file.name, VOCABULARY_SIZE)
    os.environ[vocabulary.ENVIRONMENT_VARIABLE] = file.name
    write_texts()


def write_texts():
  for name, (command_name, argv) in MAIN.items():
    configure(command_name, argv)
    (GOLDEN / f"{name}.gin").write_text(gin_config.operative_text())


if __name__ == "__main__":
  write_golden()


COMMON = (
  "--gin.MODEL_DIR='runs/1'",
  "--gin.MIXTURE_OR_TASK_NAME='skill_first'",
  "--gin.TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 16}",
  "--gin.TRAIN_STEPS=None",
  "--gin.TRAIN_STEPS_RELATIVE=10",
)
LORA = (
  "--gin_file=models/embedded.gin",
  "--gin_file=methods/lora.gin",
  "--gin_file=runs/finetune.gin",
  "--gin_file=meshes/single.gin",
  *COMMON,
)
RATE = "LEARNING_RATE = 0.25\nOPTIMIZER = @optimizers.Optax()\n"
RATE += "optimizers.Optax.name = 'sgd'\n"


@pytest.mark.parametrize("first", [True, False])
def test_what_a_user_sets_wins_over_a_recipe_in_any_order(tmp_path, first):
  path = tmp_path / "mine.gin"
  path.write_text(RATE)
  mine, ours = [f"--gin_file={path}"], list(LORA)
  job = configure("train", [*mine, *ours] if first else [*ours, *mine])
  (run,) = job.experiment.runs
  assert run.learning_rate == 0.25
  assert job.experiment.run_optimizer.name == "sgd"
  assert job.experiment.notes == []


def test_a_recipe_counts_where_a_user_says_nothing():
  experiment = configure("train", LORA).experiment
  (run,) = experiment.runs
  recipe = discovery.methods()["LoRA"].recipe
  assert run.learning_rate == recipe.learning_rate
  assert experiment.run_optimizer.name == recipe.optimizer
  (note,) = experiment.notes
  assert f"LEARNING_RATE = {recipe.learning_rate}" in note


def test_a_recipe_may_limit_gradients():
  flags = [flag.replace("methods/lora", "methods/p_tuning") for flag in LORA]
  experiment = configure("train", flags).experiment
  recipe = discovery.methods()["PTuning"].recipe
  assert experiment.run_optimizer.max_norm == recipe.max_norm
  assert experiment.run_optimizer.optimizer.name == recipe.optimizer
  (note,) = experiment.notes
  assert f"gradients of a norm of {recipe.max_norm} at most" in note


def test_a_setting_of_an_optimizer_that_is_not_used_is_an_error():
  with pytest.raises(ValueError, match="would have no effect: the method's"):
    configure("train", [*LORA, "--gin.optimizers.Adafactor.decay_rate=0.5"])


def test_methods_are_compared_each_by_its_recipe():
  flags = [
    *("--gin_file=models/embedded.gin", "--gin_file=runs/compare_methods.gin"),
    *COMMON,
  ]
  job = configure("compare", flags)
  assert job.titles == (
    *("prompt tuning", "deep prompts", "P-tuning", "prefix tuning"),
    *("LoRA", "(IA)3", "adapter tuning", "norm tuning"),
  )
  rates = [t.experiment.runs[0].learning_rate for t in job.trainings]
  assert rates == [
    type(t.experiment.tuners[0]).recipe.learning_rate for t in job.trainings
  ]


def of(method, *more):
  return [f.replace("methods/lora", f"methods/{method}") for f in LORA] + [
    *more
  ]


def test_a_setting_reaches_the_method_of_its_own_file():
  flags = of("hyperformer_per_layer", "--gin.HYPER_REDUCTION=8")
  (tuner,) = configure("train", flags).experiment.tuners
  assert (type(tuner).__name__, tuner.reduction) == ("HyperFormer", 8)


@pytest.mark.parametrize("name", [n for n in NAMES if "methods/" in n])
def test_a_setting_of_an_initialiser_reaches_the_method(name):
  """A default of the class would not know it."""
  setting = "tuners.SampledVocabulary.population = 7"
  whole(context_of(name), [setting])
  (tuner,) = gin.get_configurable("train")().experiment.tuners
  for field in dataclasses.fields(tuner):
    value = getattr(tuner, field.name)
    used = field.name != "decoder_init"  # no file here has such a prompt
    if used and isinstance(value, initializers.SampledVocabulary):
      assert value.population == 7, field.name


@pytest.mark.parametrize(
  ("method", "tuner", "setting"),
  [
    ("hyperformer", "HyperFormer", "HYPER_REDUCTION=8"),
    ("multitask_prompt", "MultitaskSum", "PROMPT_LENGTH=100"),
    ("lora", "Prompt", "tuners.LoRA.rank=2"),
    ("lora", "Prompt", "LoRA.rank=2"),
  ],
)
def test_a_setting_of_a_method_that_is_not_used_is_an_error(
  method, tuner, setting
):
  """A class gets no setting of another one, its parent's neither."""
  flags = of(method, f"--gin.{setting}", f"--gin.TUNER=@tuners.{tuner}")
  name = re.escape(setting.split("=")[0])
  with pytest.raises(ValueError, match=rf": {name} would have no .*{tuner}\."):
    configure("train", flags)


def test_what_is_written_down_has_no_settings_of_unused_methods(tmp_path):
  argv = [flag.replace("embedded", "embedded_prompt") for flag in LORA]
  argv.insert(1, "--gin_file=prompts/from_sampled_vocab.gin")
  job = configure("train", argv)
  text = gin_config.config_text()
  assert "LoRA.rank" in text
  assert "Prompt.encoder" not in text
  path = tmp_path / "config.gin"
  path.write_text(text)
  again = configure("train", [f"--gin_file={path}"])
  assert again.experiment.tuners == job.experiment.tuners
