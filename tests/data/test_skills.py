"""Skills in words: right answers, the same everywhere, nothing leaks."""

import collections
import hashlib
import itertools
import json
import subprocess
import sys

import pytest

from prompt_tuning.data import skills

ONE_TO_FIVE = ["one", "two", "three", "four", "five"]
NUMBERS = (
  "one two three four five six seven eight nine ten eleven twelve thirteen "
  "fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty "
  "fifty sixty seventy eighty ninety hundred thousand million"
)
KIND = {w: kind for kind, words in skills.CATEGORIES.items() for w in words}


def by_length(words, longest):
  size = sorted(len(word) for word in words)[-1 if longest else 0]
  (only,) = [word for word in words if len(word) == size]
  return only


def by_value(words, index):
  return sorted(words, key=NUMBERS.split().index)[index]


def kinds(words, rare):
  tally = collections.Counter(KIND[word] for word in words).most_common()
  assert [count for _, count in tally] == [len(words) - 1, 1]
  return tally[1 if rare else 0][0]


# Written again, with other means than the module's.
ORACLES = {
  "first": lambda words: words[0],
  "second": lambda words: words[1],
  "last": lambda words: words[len(words) - 1],
  "longest": lambda words: by_length(words, longest=True),
  "shortest": lambda words: by_length(words, longest=False),
  "alphabetical": lambda words: sorted(words)[0],
  "count": lambda words: ONE_TO_FIVE[len(words) - 1],
  "repeat": lambda words: " ".join(words),
  "reverse": lambda words: " ".join(words[::-1]),
  "sort": lambda words: " ".join(
    next(o for o in itertools.permutations(words) if list(o) == sorted(o))
  ),
  "odd_one_out": lambda words: next(
    word for word in words if KIND[word] == kinds(words, rare=True)
  ),
  "category": lambda words: kinds(words, rare=False),
  "membership": lambda words: (
    "yes" if "animal" in {KIND[word] for word in words} else "no"
  ),
  "opposite": lambda words: next(
    b for a, b in skills.OPPOSITES.items() if a == words[0]
  ),
  "largest": lambda words: by_value(words, -1),
  "smallest": lambda words: by_value(words, 0),
  "initial": lambda words: f"{words[0]:.1}",
}

HELD_OUT = {
  "second_last": lambda words: words[len(words) - 2],
  "first_and_last": lambda words: " ".join([words[0], words[len(words) - 1]]),
  "every_other": lambda words: " ".join(
    word for place, word in enumerate(words) if place % 2 == 0
  ),
  "opposite_of_last": lambda words: ORACLES["opposite"](words[::-1]),
  "swap_first_two": lambda words: " ".join(words[:2][::-1] + words[2:]),
  "drop_first": lambda words: " ".join(words).partition(" ")[2],
  "longest_then_shortest": lambda words: (
    f"{by_length(words, longest=True)} {by_length(words, longest=False)}"
  ),
  "last_in_alphabet": lambda words: sorted(words)[-1],
}

FORMS = {
  "things": KIND,
  "describing": skills.OPPOSITES,
  "numbers": NUMBERS.split(),
}


def form(text):
  """Return the one kind of list that a text is."""
  (only,) = [
    name for name, known in FORMS.items() if set(text.split()) <= set(known)
  ]
  return only


def split_instruction(text):
  instruction, words = text.split(": ")
  (skill,) = [
    s.name for s in skills.SKILLS.values() if instruction in s.instructions
  ]
  return skill, instruction, words


@pytest.fixture(scope="module")
def splits():
  return {
    (skill, split): list(skills.examples(skill, split))
    for skill in skills.SKILLS
    for split in skills.SPLITS
  }


@pytest.fixture(scope="module")
def pretraining():
  return list(skills.pretraining(6_000, seed=0))


def test_every_answer_is_right(splits):
  assert list(ORACLES) == list(skills.SKILLS)
  for (skill, _), examples in splits.items():
    for example in examples:
      answer = ORACLES[skill](example["inputs"].split(" "))
      assert example["targets"] == answer, (skill, example)


def test_held_out_skills_are_right_and_nobody_met_them(pretraining):
  assert list(HELD_OUT) == list(skills.HELD_OUT)
  assert not set(skills.HELD_OUT) & set(skills.SKILLS)
  wordings = {s.instructions[0] for s in skills.HELD_OUT.values()}
  assert len(wordings) == len(HELD_OUT)
  assert not wordings & {split_instruction(e["inputs"])[1] for e in pretraining}
  met = {split_instruction(e["inputs"])[2] for e in pretraining}
  for skill, oracle in HELD_OUT.items():
    examples = list(skills.examples(skill, "validation"))
    assert len(examples) == skills.SPLITS["validation"]
    for example in examples:
      words = example["inputs"].split(" ")
      assert example["targets"] == oracle(words), (skill, example)
    assert not met & {e["inputs"] for e in examples}
    # No skill that was met answers as this one does.
    for rule in skills.SKILLS.values():
      able = [e for e in examples if form(e["inputs"]) in rule.forms]
      same = [rule.answer(tuple(e["inputs"].split())) for e in able]
      right = sum(a == e["targets"] for a, e in zip(same, able, strict=True))
      assert right <= 0.7 * len(able), (skill, rule.name)


def test_pretraining_answers_what_its_instruction_asks(pretraining):
  for example in pretraining:
    skill, _, text = split_instruction(example["inputs"])
    assert example["targets"] == ORACLES[skill](text.split(" ")), example


@pytest.mark.parametrize(
  ("skill", "text", "answer"),
  [
    ("alphabetical", "sweet hot easy hard", "easy"),
    ("odd_one_out", "golden grey scarlet yellow castle", "castle"),
    ("category", "priest sea moon field", "nature"),
    ("membership", "bridge tiger palace cottage", "yes"),
    ("opposite", "ugly ancient bad early", "beautiful"),
    ("smallest", "thousand fifty million nineteen", "nineteen"),
    ("initial", "eleven thousand four", "e"),
  ],
)
def test_answers_that_a_person_wrote_down(skill, text, answer):
  assert skills.SKILLS[skill].answer(tuple(text.split())) == answer
  assert ORACLES[skill](text.split()) == answer


def test_sizes_and_names(splits):
  for (_, split), examples in splits.items():
    assert len(examples) == skills.SPLITS[split]
    assert [e["idx"] for e in examples] == list(map(str, range(len(examples))))
    assert all(set(e) == {"inputs", "targets", "idx"} for e in examples)
  assert all(name == skill.name for name, skill in skills.SKILLS.items())


def test_no_text_stands_in_two_splits_or_in_pretraining(splits, pretraining):
  texts = collections.defaultdict(set)
  for (_, split), examples in splits.items():
    texts[split] |= {e["inputs"] for e in examples}
  texts["pretraining"] = {
    split_instruction(e["inputs"])[2] for e in pretraining
  }
  for one, other in itertools.combinations(texts.values(), 2):
    assert not one & other
  for (_, split), examples in splits.items():
    assert len({e["inputs"] for e in examples}) == skills.SPLITS[split]


def test_the_splits_have_no_instruction(splits):
  instructions = {i for s in skills.SKILLS.values() for i in s.instructions}
  for examples in splits.values():
    for example in examples:
      words = example["inputs"].split(" ")
      assert 3 <= len(words) == len(set(words)) <= 5
      assert form(example["inputs"]) in FORMS
      assert ":" not in example["inputs"]
      assert example["inputs"] not in instructions


def test_an_input_does_not_tell_the_skill(splits):
  """Every kind of list is asked about by many skills, most by all."""
  askers = collections.defaultdict(set)
  for (skill, split), examples in splits.items():
    shares = collections.Counter(form(e["inputs"]) for e in examples)
    assert set(shares) == set(skills.SKILLS[skill].forms)
    if split == "train":
      assert min(shares.values()) > 0.8 * len(examples) / len(shares)
    for name in shares:
      askers[name].add(skill)
  shared = set.intersection(*askers.values())
  assert len(shared) >= 8
  for name in FORMS:
    assert len(askers[name]) > len(shared)


@pytest.mark.parametrize("name", FORMS)
def test_the_skills_of_a_form_could_be_asked_about_the_same_text(name):
  """The answers differ, so an input has no answer of its own."""
  able = [s for s in skills.SKILLS.values() if name in s.forms]
  words = tuple(
    next(
      e["inputs"]
      for e in skills.examples(able[0].name, "test")
      if form(e["inputs"]) == name
    ).split()
  )
  answers = {s.name: s.answer(words) for s in able}
  assert answers == {s.name: ORACLES[s.name](words) for s in able}
  assert len(set(answers.values())) > len(able) / 2


def test_skills_and_wordings_take_equal_shares(pretraining):
  asked = [split_instruction(e["inputs"])[:2] for e in pretraining]
  by_skill = collections.Counter(skill for skill, _ in asked)
  assert set(by_skill) == set(skills.SKILLS)
  assert max(by_skill.values()) - min(by_skill.values()) <= 1
  by_wording = collections.Counter(asked)
  for skill in skills.SKILLS.values():
    even = by_skill[skill.name] / len(skill.instructions)
    for wording in skill.instructions:
      assert 0.6 * even < by_wording[skill.name, wording] < 1.4 * even


def test_no_instruction_means_two_skills():
  wordings = [i for s in skills.SKILLS.values() for i in s.instructions]
  assert len(set(wordings)) == len(wordings)
  assert all(len(s.instructions) >= 4 for s in skills.SKILLS.values())


def test_membership_is_balanced(splits):
  answers = [e["targets"] for e in splits["membership", "train"]]
  assert 0.45 < answers.count("yes") / len(answers) < 0.55


def test_opposites_and_kinds_are_unambiguous():
  assert all(skills.OPPOSITES[b] == a for a, b in skills.OPPOSITES.items())
  assert len(KIND) == sum(map(len, skills.CATEGORIES.values()))
  assert not set(KIND) & set(skills.OPPOSITES)


def test_prefixes_and_seeds_of_pretraining(pretraining):
  assert list(skills.pretraining(500, seed=0)) == pretraining[:500]
  other = list(skills.pretraining(500, seed=1))
  assert sum(map(lambda a, b: a == b, other, pretraining)) < 5


def digest(rows):
  return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def test_the_examples_of_version_1(splits, pretraining):
  """A change here makes committed models and scores meaningless: VERSION."""
  assert skills.VERSION == 1
  everything = {"/".join(key): rows for key, rows in splits.items()}
  assert digest(everything) == "f37adb7cded76b98"
  assert digest(pretraining) == "e8fba8d037245e6e"


def test_another_process_and_hash_seed_give_the_same_examples(pretraining):
  code = (
    "import json; from prompt_tuning.data import skills; "
    "print(json.dumps(list(skills.pretraining(200, 0))))"
  )
  done = subprocess.run(
    [sys.executable, "-c", code],
    env={"PYTHONHASHSEED": "7"},
    capture_output=True,
    check=True,
    text=True,
  )
  assert json.loads(done.stdout) == pretraining[:200]


def test_instructions_stand_in_front():
  assert skills.instructed("red blue sky", "first word") == (
    "first word: red blue sky"
  )


def test_unknown_names_are_errors_that_help():
  with pytest.raises(ValueError, match=r"Unknown skill 'firsst'.*'first'"):
    next(skills.examples("firsst", "test"))
  with pytest.raises(ValueError, match=r"Unknown split 'valid'.*validation"):
    next(skills.examples("first", "valid"))
