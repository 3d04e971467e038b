"""The embedded model knows its skills, and prompts recover them.

A part of README's quickstart, with its settings; the whole is `make
quickstart`.
"""

import statistics

import pytest

from prompt_tuning import api
from prompt_tuning.core import embedded
from prompt_tuning.data import skills
from prompt_tuning.jobs import comparison, load
from prompt_tuning.launch import main

# Of those that every seed learns: of six seeds, the worst scored 94 and their
# mean 98.9. `last` and `count` are not among them: which seed has learned these
# after 150 steps depends on the processor's rounding.
SKILLS = ("first", "initial", "membership", "opposite", "largest")
# A mean over all rows is what slower learning lowers: after 50 steps it was 80.
MEAN, EACH, CONTROL = 95.0, 80.0, 5.0


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
  folder = tmp_path_factory.mktemp("quickstart")
  names = tuple(f"skill_{name}" for name in SKILLS)
  twins = {name: f"instructed_{name}" for name in names}
  argv = [
    "--gin_file=runs/quickstart.gin",
    f"--gin.MODEL_DIR='{folder / 'run'}'",
    f"--gin.TOKEN_CACHE_DIR='{folder / 'cache'}'",
    f"--gin.MIXTURE_OR_TASK_NAME={names!r}",
    f"--gin.INSTRUCTED={twins!r}",
    "--gin.MODEL_TUNING=None",
    "--gin.SEEDS=(0,)",
    "--gin.EVALUATOR_NUM_EXAMPLES=64",
    "--gin.train.evaluation=None",
    "--gin.train.progress_bar=False",
    "--gin.train.tensorboard=False",
  ]
  assert main.main(["compare", *argv]) == 0
  return comparison.read(folder / "run")


def insist_on_skills(compared, method):
  scores = {task: compared.of(method, task)[0] for task in compared.tasks}
  assert len(scores) == len(SKILLS)
  assert min(scores.values()) >= EACH, scores
  assert statistics.fmean(scores.values()) >= MEAN, scores


def test_prompts_recover_the_skills(compared):
  insist_on_skills(compared, "prompt tuning")
  assert compared.frozen


def test_neither_the_model_nor_noise_has_them(compared):
  for method in (comparison.PLAIN, "random prompt"):
    for task in compared.tasks:
      (found,) = compared.of(method, task)
      assert found <= CONTROL, (method, task, found)


def test_words_ask_for_them_too(compared):
  insist_on_skills(compared, comparison.INSTRUCTION)


def test_the_model_continues_text_instead_of_filling_blanks():
  model = api.load_model(embedded.DEFAULT)
  openings = [
    "the old man walked slowly down the road and",
    "she looked out of the window at the rain , for",
    "when the letter came , nobody in the house would",
  ]
  for text in model.predict(openings, length=16):
    assert text.strip()
    assert "<extra_id_" not in text


def test_two_lines_of_the_notebook_api_use_a_skill():
  model = api.load_model(embedded.DEFAULT)
  rows = list(skills.examples("count", "test"))[:32]
  asked = [
    skills.instructed(row["inputs"], skills.SKILLS["count"].instructions[0])
    for row in rows
  ]
  answers = model.predict(asked)
  right = sum(a == row["targets"] for a, row in zip(answers, rows, strict=True))
  assert right >= 29


PUBLISHED = ("opposite", "last", "count")


def test_published_prompts_do_what_their_cards_say():
  named = {name: f"embedded:prompts/{name}" for name in PUBLISHED}
  model = api.load_model(embedded.DEFAULT).with_prompts(named)
  rows = {name: list(skills.examples(name, "test"))[:16] for name in named}
  asked = [row["inputs"] for name in named for row in rows[name]]
  prompts = [name for name in named for _ in rows[name]]
  answers = iter(model.predict(asked, prompt=prompts))
  for name in named:
    right = sum(next(answers) == row["targets"] for row in rows[name])
    scores = load.load(named[name])
    assert scores.tasks == (f"skill_{name}",)
    assert right >= 14, name
  with pytest.raises(ValueError, match="was tuned with the backbone"):
    load.insist(
      load.load(named["last"]),
      model.backbone._replace(fingerprint="another"),
      named["last"],
      None,
    )
  other = api.load_model("embedded:tall_3").backbone.fingerprint
  for name in embedded.prompt_names():
    own = other if name.startswith("tall_3_") else model.backbone.fingerprint
    assert load.load(f"embedded:prompts/{name}").fingerprint == own


def test_a_published_prompt_is_refused_by_the_other_model():
  model = api.load_model("embedded:ladder_2")
  with pytest.raises(ValueError, match="does not fit the model"):
    model.with_prompts({"last": "embedded:prompts/last"})


def test_a_published_prompt_is_a_path_like_any_other(tmp_path, capsys):
  path = "embedded:prompts/opposite"
  assert main.main(["inspect", path]) == 0
  shown = capsys.readouterr().out
  assert "score, test: 100.0" in shown
  assert "backbone: " in shown
  target = tmp_path / "opposite.npy"
  assert main.main(["convert", path, str(target), "--to", "npy"]) == 0
  assert main.main(["diff", path, str(target)]) == 0
  assert main.main(["export", path, str(tmp_path / "export")]) == 0
  assert main.main(["similar", path, "embedded:prompts/last"]) == 0
  assert main.main(["inspect", "embedded:prompts/opposites"]) == 2
  assert "Did you mean 'opposite'" in capsys.readouterr().err
