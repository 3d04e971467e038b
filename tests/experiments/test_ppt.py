"""PPT's experiment: its text and relations, the commands, what is counted."""

import json
import statistics

import pytest

from experiments.ppt import run as experiment
from experiments.ppt import text
from prompt_tuning.data import corpus, ppt, spec
from prompt_tuning.launch import command, flags
from prompt_tuning.tuners.initializers import SampledVocabulary

HERE = experiment.HERE


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
  monkeypatch.setattr(spec, "_specs", dict(spec._specs))
  monkeypatch.setattr(ppt, "_rows", dict(ppt._rows))


def test_half_of_the_sentences_name_an_animal(tmp_path):
  path = tmp_path / "text.txt"
  text.write_text(path, documents=200, seed=0)
  documents = list(corpus.read(str(path)))
  assert len(documents) == 200
  sentences = [line for d in documents for line in d.text.splitlines()]
  assert len(sentences) == 1200
  labels = [text.names_an_animal(sentence) for sentence in sentences]
  assert 0.45 < labels.count("yes") / len(labels) < 0.55


@pytest.mark.parametrize("relation", text.RELATIONS)
def test_rows_are_what_their_label_says(tmp_path, relation):
  path = tmp_path / "rows.jsonl"
  text.write_rows(path, relation, 200, seed=0)
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  assert [row["label"] for row in rows] == ["no", "yes"] * 100
  for row in rows:
    words = row["text"].split()
    animals = [word in text.ANIMALS for word in words]
    holds = {
      "begins": animals[0],
      "most": sum(animals) == len(words) - 1,
      "two": sum(animals) == 2,
    }
    assert holds[relation] == (row["label"] == "yes")
    assert 3 <= len(words) <= 5


def configure(files, *more):
  argv = [
    f"--gin_file={file if '/' in str(file) else HERE / file}" for file in files
  ]
  argv += [f"--gin.{binding}" for binding in ("MODEL_DIR='r'", *more)]
  return command.configure("train", flags.parse("train", argv, ""))


def test_the_pair_of_commands(tmp_path, published_vocabulary_file, monkeypatch):
  """Of the paper's files: text, then a task in its form, from a prompt."""
  monkeypatch.chdir(HERE.parents[1])  # real files lie beside the checkout
  path = tmp_path / "a.txt"
  path.write_text("One. Two. Three.\n\nOther.")
  model = ("INITIAL_CHECKPOINT_PATH='m/checkpoint_1000000'",)
  words = (f"VOCABULARY_FILE={published_vocabulary_file!r}", *model)
  files = {"train": str(path), "validation": str(path)}
  first = configure(["paper_text.gin"], f"TEXT={files!r}", *words).experiment
  assert (first.dataset.batch_size, first.learning_rates) == (256, (0.1,))
  for task, classes in (("rte", 2), ("cb", 3)):
    task_file = HERE / f"{task}_task.gin"
    files = ("paper_few_shot.gin", task_file, "prompts/from_file.gin")
    second = configure(files, "PROMPT_FILE='p.npy'", *words).experiment
    assert second.dataset.lengths["inputs"] == 128
    (name,) = second.dataset.names
    answers = spec.task(name).label_words
    # The words of the text, which the prompt has learned already.
    assert set(answers) <= set(spec.task("ppt_pairs").label_words)
    assert len(answers) == classes


@pytest.mark.usefixtures("shared_data")
def test_the_paper_s_other_methods_are_lines(
  published_vocabulary_file, monkeypatch
):
  monkeypatch.chdir(HERE.parents[1])
  model = ("INITIAL_CHECKPOINT_PATH='m/checkpoint_1000000'",)
  words = (f"VOCABULARY_FILE={published_vocabulary_file!r}", *model)
  files = ("paper_few_shot.gin", "rte_task.gin")
  vanilla = (*files, "prompts/from_sampled_vocab.gin")
  adapted = ("TARGET_FORMAT='plain'", "TASK='adapted'", *words)
  tuners = configure(vanilla, *adapted).experiment.tuners
  assert {tuner.encoder_init for tuner in tuners} == {SampledVocabulary()}
  assert spec.task("adapted").label_words == ("yes", "no")
  pattern = 'Is {"field": "text_b"} so? {"mask"} {"placeholder": "text_a"}'
  hybrid = (f"data.ppt_task.template={pattern!r}", "TASK='hybrid'", *words)
  configure(vanilla, *hybrid)
  assert spec.task("hybrid").content["template"] == pattern


def test_what_is_written_down_is_what_was_scored(tmp_path, same_picture):
  found = json.loads((HERE / "results.json").read_text())
  table = experiment.table(found)
  assert table == (HERE / "table.md").read_text()
  assert table in (HERE / "README.md").read_text()
  for of_task in found.values():
    for start, against in of_task["against_random"].items():
      assert against == experiment.paired(of_task["curves"], start)
      assert against["of"] == 5
  curves = {task: of_task["curves"] for task, of_task in found.items()}
  experiment.draw(curves, tmp_path / "curves.png")
  same_picture(tmp_path / "curves.png", HERE / "curves.png")


def test_plain_text_helps_where_random_prompts_fall_short_and_noise_does_not():
  """On the relation that is hardest, and in the mean of all three."""
  found = json.loads((HERE / "results.json").read_text())
  of_lists = [found[t]["against_random"] for t in ("begins", "most", "two")]
  hardest = of_lists[-1]
  assert hardest["pretrained"]["ahead"] == 5
  assert hardest["pretrained"]["p"] < 0.05
  mean = {
    start: statistics.fmean(task[start]["gain"] for task in of_lists)
    for start in ("pretrained", "shuffled")
  }
  assert mean["shuffled"] < 0 < hardest["pretrained"]["gain"]
  assert hardest["shuffled"]["gain"] < 0 < mean["pretrained"]


def test_a_sign_test_counts_no_ties():
  ends = {"random": (50, 60, 70, 50, 50), "pretrained": (60, 60, 80, 90, 40)}
  curves = {s: [[(0, 0.0), (9, e)] for e in v] for s, v in ends.items()}
  found = experiment.paired(curves, "pretrained")
  assert (found["gain"], found["ahead"]) == (10.0, 3)
  assert found["p"] == 5 / 16  # at least 3 of 4
