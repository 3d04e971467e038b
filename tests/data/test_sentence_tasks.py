"""Tasks of plain text: exact shares of labels, no wrong answer is right."""

import collections
import hashlib
import json

import pytest

from prompt_tuning.data import lexicon, sentence_tasks
from prompt_tuning.data.sentence_tasks import Passage

SIX = (6,)
UNIFIED = sentence_tasks.UNIFIED_OPTIONS


def corpus(lengths=(1, 3, 4, 7, 2, 12, 1, 5)):
  """Documents of such lengths; sentence i of document d is `d/i`."""
  return [
    Passage(f"a.txt:{d}", tuple(f"{d}/{i}" for i in range(length)))
    for d, length in enumerate(lengths)
  ]


def pairs(count=300, seed=0, passages=None):
  return list(sentence_tasks.pairs(passages or corpus(), count, seed))


def choices(count=300, seed=0, options=SIX, passages=None):
  passages = passages or corpus()
  return list(sentence_tasks.choices(passages, count, seed, options))


def labelled(count, labeller=lexicon.label, passages=None, classes=None):
  texts = [f"{word} {number}" for number in range(40) for word in LABELS]
  passages = passages or [
    Passage(f"a.txt:{n}", (t,)) for n, t in enumerate(texts)
  ]
  classes = classes or lexicon.CLASSES
  return list(sentence_tasks.labelled(passages, count, 0, labeller, classes))


LABELS = ("awful", "sad", "sad glad", "glad", "lovely", "a house")


def place(text):
  return tuple(map(int, text.split("/")))


def digest(rows):
  return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def test_the_same_seed_gives_the_same_rows_forever():
  """On every machine and version; `VERSION` changes with these."""
  assert {
    "pairs": digest(pairs()),
    "choices": digest(choices()),
    "unified": digest(choices(options=UNIFIED)),
    "labelled": digest(labelled(50)),
  } == {
    "pairs": "eb37d4e96b6c61e5",
    "choices": "b835565394f6357d",
    "unified": "645ddeeae2d5e1e1",
    "labelled": "a17dacd1a8ec86b7",
  }
  assert pairs(seed=1) != pairs()
  assert choices(seed=1) != choices()


@pytest.mark.parametrize("count", [300, 301, 302])
def test_a_third_of_the_pairs_has_each_label(count):
  rows = pairs(count)
  counts = collections.Counter(row["label"] for row in rows)
  assert sorted(counts) == [0, 1, 2]
  assert max(counts.values()) - min(counts.values()) <= 1
  assert len(rows) == count
  assert [row["label"] for row in rows] != sorted(row["label"] for row in rows)


def test_pairs_are_what_their_label_says():
  for row in pairs(600):
    (d, i), (other, j) = place(row["text_a"]), place(row["text_b"])
    if row["label"] == 2:
      assert (other, j) == (d, i + 1)
    elif row["label"] == 1:
      assert other == d
      assert abs(i - j) > 1
    else:
      assert other != d


def test_the_first_sentence_tells_no_label():
  """Documents of one sentence are drawn from as the others' only."""
  rows = pairs(3000)
  starts = [collections.Counter(), collections.Counter(), collections.Counter()]
  for row in rows:
    starts[row["label"]][row["text_a"]] += 1
  assert starts[0].keys() == starts[1].keys() == starts[2].keys()
  assert not any(text.startswith(("0/", "6/")) for text in starts[0])
  assert any(row["text_b"] == "0/0" for row in rows)


def test_one_option_follows_and_one_is_of_the_same_document():
  for row in choices(300):
    d, i = place(row["text_a"])
    options = [place(text) for text in row["options"]]
    assert len(set(options)) == 6
    assert options.pop(row["label"]) == (d, i + 1)
    same = [at for at in options if at[0] == d]
    assert len(same) == 1
    assert abs(same[0][1] - i) > 1


def test_every_letter_is_right_as_often():
  counts = collections.Counter(row["label"] for row in choices(300))
  assert counts == dict.fromkeys(range(6), 50)
  # In the unified form, for every number of options.
  rows = choices(15 * 48, options=UNIFIED)
  by_size = collections.defaultdict(collections.Counter)
  for row in rows:
    by_size[len(row["options"])][row["label"]] += 1
  assert sorted(by_size) == list(range(2, 17))
  for size, counts in by_size.items():
    assert counts.total() == 48
    assert len(counts) == size
    assert max(counts.values()) - min(counts.values()) <= 1


def test_no_wrong_answer_reads_as_the_right_one():
  """Where sentences repeat, none that equals the true one is drawn."""
  passages = [
    Passage(f"a.txt:{d}", tuple(f"{(d + i) % 5}" for i in range(9)))
    for d in range(4)
  ]
  for row in pairs(600, passages=passages):
    follows = f"{(int(row['text_a']) + 1) % 5}"
    assert (row["text_b"] == follows) == (row["label"] == 2)
  for row in choices(200, options=(3,), passages=passages):
    follows = f"{(int(row['text_a']) + 1) % 5}"
    assert row["options"].index(follows) == row["label"]
    assert len({row["text_a"], *row["options"]}) == 4


@pytest.mark.parametrize(
  ("lengths", "message"),
  [
    ((9,), r"^a\.txt:0: the corpus has one document"),
    ((2, 1, 2), r"^a\.txt:0: the longest document has 2 sentences; .* 3"),
    ((1, 2, 1), r"^a\.txt:1: the longest document has 2 sentences; .* 3"),
  ],
)
def test_too_little_text(lengths, message):
  with pytest.raises(ValueError, match=message):
    pairs(passages=corpus(lengths))
  with pytest.raises(ValueError, match=message):
    choices(passages=corpus(lengths), options=(2,))


def test_fewer_sentences_than_options():
  few = corpus((3, 3))
  assert len(choices(options=(4,), passages=few)) == 300
  with pytest.raises(ValueError, match=r"a\.txt:0: .* 6 different .* at least"):
    choices(options=SIX, passages=few)
  # Enough in all, and too few in other documents.
  lopsided = corpus((9, 1))
  with pytest.raises(ValueError, match=r"a\.txt:0: in 1000 draws, no sentence"):
    choices(options=(4,), passages=lopsided)
  same = [Passage("a.txt:0", ("a",) * 5), Passage("a.txt:7", ("a",) * 5)]
  with pytest.raises(ValueError, match="every sentence repeated others"):
    pairs(passages=same)
  with pytest.raises(ValueError, match="has no sentence"):
    list(sentence_tasks.pairs([], 3, 0))


def test_as_many_sentences_of_every_label():
  rows = labelled(52)
  counts = collections.Counter(row["label"] for row in rows)
  assert sorted(counts.values()) == [10, 10, 10, 11, 11]
  assert len({row["text_a"] for row in rows}) == 52
  assert all(
    lexicon.CLASSES[r["label"]] == lexicon.label(r["text_a"]) for r in rows
  )
  assert not any("house" in row["text_a"] for row in rows)


def test_a_labeller_that_fails_to_label():
  with pytest.raises(
    ValueError, match=r"^a\.txt:\d+: .*'goood' for .* Did you mean 'good'"
  ):
    labelled(10, lambda text: "goood")
  with pytest.raises(
    ValueError,
    match=r"^a\.txt:0: among the 240 .* finds 20 too few .*'terrible'",
  ):
    labelled(300)


def test_shuffled_labels_keep_their_shares():
  rows = choices(15 * 20, options=UNIFIED)
  others = sentence_tasks.shuffle_labels(rows, seed=3)

  def shares(rows):
    return collections.Counter((len(r["options"]), r["label"]) for r in rows)

  assert shares(others) == shares(rows)
  same = sum(a == b for a, b in zip(rows, others, strict=True))
  assert same < len(rows) / 3
  assert [r["options"] for r in others] == [r["options"] for r in rows]


@pytest.mark.parametrize(
  ("text", "label"),
  [
    ("A horrible, ghastly day!", "terrible"),
    ("The poor dog was cold.", "bad"),
    ("A sad smile.", "maybe"),
    ("They were not happy.", "bad"),
    ("It isn't bad.", "good"),
    ("It isn\u2019t bad.", "good"),
    ("I never was so glad.", "bad"),
    ("A kind friend.", "good"),
    ("What a lovely, perfect garden.", "great"),
    ("The house stood by the road.", None),
  ],
)
def test_the_lexicon(text, label):
  assert lexicon.label(text) == label
