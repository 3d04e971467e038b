"""Conversion of rows to the texts `inputs` and `targets`, with tf.data.

Source: the text forms of the T5 library and of google-research/prompt-tuning.
Each takes and returns a `tf.data.Dataset`; the leading word of the inputs is
the task's name, which `drop_task_name` removes again for the `taskless_` tasks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from prompt_tuning.data import spec

Row = Mapping[str, Any]


@seqio.map_over_dataset
def drop_task_name(row: Row) -> dict[str, Any]:
  """Drop everything of the inputs up to and including the first space."""
  inputs = tf.strings.regex_replace(
    row["inputs"], r"^[^ ]* ", "", replace_global=False
  )
  return {**row, "inputs": inputs}


@seqio.map_over_dataset
def put_sentinel(row: Row, number: int) -> dict[str, Any]:
  """Put a sentinel in front of the inputs, which tells the task of a row.

  It is added as text, which becomes one token; the original adds the same token
  after tokenisation.
  """
  inputs = tf.strings.join([f"<extra_id_{number}>", row["inputs"]], " ")
  return {**row, "inputs": inputs}


@seqio.map_over_dataset
def single_blanks(row: Row) -> dict[str, Any]:
  """Make every run of blanks in the inputs one space."""
  return {**row, "inputs": _single_blanks(row["inputs"])}


@seqio.map_over_dataset
def labelled_fields(
  row: Row,
  name: str,
  fields: Sequence[str],
  label_words: Sequence[str],
  others: Sequence[str] = (),
) -> dict[str, Any]:
  """Write `NAME field1: text1 field2: text2` and the label's word.

  Args:
    row: with `label`, the text fields and maybe `idx`.
    name: leading word.
    fields: names, in the order in which they are written.
    label_words: words by class id; label -1 (no label) becomes `<unk>`.
    others: features that are copied unchanged.

  Returns:
    `inputs`, `targets`, `others`, and `idx` if the row has one.
  """
  pieces: list[Any] = [name]
  for field in fields:
    pieces += [f"{field}:", row[field]]
  example = {
    "inputs": tf.strings.join(pieces, separator=" "),
    "targets": _label_word(row["label"], label_words),
    **{name: row[name] for name in others},
  }
  if "idx" in row:
    example["idx"] = row["idx"]
  return example


def labelled_only(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """Drop the rows with label -1, on which annotators did not agree."""
  return dataset.filter(lambda row: row["label"] != -1)


@seqio.map_over_dataset
def rename(row: Row, names: Mapping[str, str]) -> dict[str, Any]:
  """Rename features.

  Args:
    row: any features.
    names: new name -> old name; other features keep their names.
  """
  others = {k: v for k, v in row.items() if k not in names.values()}
  return {**others, **{new: row[old] for new, old in names.items()}}


@seqio.map_over_dataset
def multirc(row: Row, label_words: Sequence[str]) -> dict[str, Any]:
  """Write MultiRC, without its HTML markup.

  Returns:
    `inputs`, `targets`, and `idx/paragraph`, `idx/question`, `idx/answer`.
  """
  pieces = ["multirc"]
  for field in ("question", "answer", "paragraph"):
    pieces += [f"{field}:", row[field]]
  text = tf.strings.join(pieces, separator=" ")
  text = tf.strings.regex_replace(text, "<br>", " ")
  return {
    "inputs": tf.strings.regex_replace(text, "</?b>", ""),
    "targets": _label_word(row["label"], label_words),
    **{f"idx/{key}": row["idx"][key] for key in ("paragraph", "question")},
    "idx/answer": row["idx"]["answer"],
  }


@seqio.map_over_dataset
def stsb(row: Row) -> dict[str, Any]:
  """Write STS-B; the score rounded to a fifth, with one decimal.

  Deviation: the test split's missing score, -1, is `<unk>`, as in every other
  task; the T5 library writes -1.0.
  """
  pieces = ["stsb sentence1:", row["sentence1"], "sentence2:", row["sentence2"]]
  score = tf.strings.as_string(tf.round(row["label"] * 5) / 5, precision=1)
  return {
    "inputs": tf.strings.join(pieces, separator=" "),
    "targets": tf.where(row["label"] < 0, spec.UNLABELLED, score),
    "idx": row["idx"],
  }


def record(
  dataset: tf.data.Dataset, one_per_query: bool = False
) -> tf.data.Dataset:
  """Write ReCoRD, one example per acceptable answer, or per query.

  A bullet of the summary ("@highlight" on its own line) gets a space at its end
  if it ends with a sentence mark or quote, otherwise ". ".

  Args:
    dataset: `passage`, `query`, `entities`, `answers`, `idx.{passage,query}`.
    one_per_query: write only the first answer, and keep `entities`, the
      candidates.

  Returns:
    `inputs`; `targets`, `<unk>` for a row without answers; the whole list
    `answers`; `idx/passage` and `idx/query`.
  """

  def render(row: Row) -> dict[str, Any]:
    passage = tf.strings.regex_replace(
      row["passage"], r"""([.?!"'])\n@highlight\n""", r"\1 "
    )
    passage = tf.strings.regex_replace(passage, r"\n@highlight\n", ". ")
    entities = tf.strings.reduce_join(row["entities"], separator=", ")
    pieces = ["record query:", row["query"], "entities:", entities]
    return {
      "inputs": tf.strings.join([*pieces, "passage:", passage], separator=" "),
      "answers": row["answers"],
      "idx/passage": row["idx"]["passage"],
      "idx/query": row["idx"]["query"],
      **({"entities": row["entities"]} if one_per_query else {}),
    }

  def one_per_answer(row: Row) -> tf.data.Dataset:
    answers = row["answers"]
    targets = tf.cond(
      tf.size(answers) > 0,
      lambda: answers[:1] if one_per_query else answers,
      lambda: tf.constant([spec.UNLABELLED]),
    )
    return tf.data.Dataset.from_tensor_slices(targets).map(
      lambda target: {**row, "targets": target}
    )

  parallel = tf.data.experimental.AUTOTUNE
  return dataset.map(render, num_parallel_calls=parallel).flat_map(
    one_per_answer
  )


def wsc(dataset: tf.data.Dataset, correct_only: bool) -> tf.data.Dataset:
  """Write WSC as generation of the referent of the marked pronoun.

  `wsc: ... *pronoun* ...`: the text is split at single spaces and word
  `span2_index` marked. Two official rows disagree with their own index; the T5
  library lists both texts, here `_pronoun_position` recognises them by their
  form.

  Args:
    dataset: `text`, `span1_text`, `span2_text`, `span2_index`, `label`, `idx`.
    correct_only: keep only rows whose candidate is the referent; only these
      teach a model to generate it.

  Returns:
    `inputs`; `targets`, the candidate; `label`; `idx`.
  """

  def render(row: Row) -> dict[str, Any]:
    words = tf.strings.split(row["text"], sep=" ")
    pronoun = row["span2_text"]
    position, rest = _pronoun_position(words, pronoun, row["span2_index"])
    marked = tf.strings.join(["*", pronoun, "*"])
    # An empty `rest` must not leave an empty word.
    has_rest = rest != ""
    rest = tf.boolean_mask([rest], [has_rest])
    words = tf.concat(
      [words[:position], [marked], rest, words[position + 1 :]], axis=0
    )
    text = tf.strings.reduce_join(words, separator=" ")
    # The published form of that one row has no final blank; others keep theirs.
    text = tf.where(has_rest, tf.strings.strip(text), text)
    return {
      "inputs": tf.strings.join(["wsc:", text], separator=" "),
      "targets": row["span1_text"],
      "label": row["label"],
      "idx": row["idx"],
    }

  if correct_only:
    dataset = dataset.filter(lambda row: row["label"] == 1)
  return dataset.map(render, num_parallel_calls=tf.data.experimental.AUTOTUNE)


def _pronoun_position(
  words: tf.Tensor, pronoun: tf.Tensor, index: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
  """Return the index of the pronoun's word, and punctuation attached to it.

  Usually the word at `index` is the pronoun. In one official row, punctuation
  is attached to it, which becomes its own word; in another row, the pronoun is
  the next word.
  """
  last = tf.size(words) - 1
  tf.debugging.assert_less_equal(
    index, last, "WSC: span2_index lies beyond the text."
  )
  word, following = words[index], words[tf.minimum(index + 1, last)]
  length = tf.strings.length(pronoun)
  starts = tf.strings.substr(word, 0, length) == pronoun
  rest = tf.strings.substr(
    word, tf.minimum(length, tf.strings.length(word)), -1
  )
  here = starts & tf.strings.regex_full_match(rest, "[[:punct:]]*")
  tf.debugging.Assert(
    here | (following == pronoun),
    ["WSC: the text at span2_index is not span2_text.", pronoun, index, words],
  )
  return tf.where(here, index, index + 1), tf.where(here, rest, "")


@seqio.map_over_dataset
def dpr(row: Row) -> dict[str, Any]:
  """Write DPR like WSC: the first occurrence of the pronoun is marked.

  An occurrence stands after a space and before a space, a full stop or a comma.
  """
  pattern = tf.strings.join([" (", row["pronoun"], r")( |\.|,)"])
  text = tf.strings.regex_replace(
    row["sentence"], pattern, r" *\1*\2", replace_global=False
  )
  return {
    "inputs": tf.strings.join(["wsc:", text], separator=" "),
    "targets": row["candidates"][row["label"]],
  }


@seqio.map_over_dataset
def squad(row: Row) -> dict[str, Any]:
  """Write SQuAD: `question: ... context: ...` and the first answer.

  `<unk>` where there is none.
  """
  return _question_answering(
    row["question"], row["context"], row["answers"]["text"], row["id"]
  )


@seqio.map_over_dataset
def mrqa(row: Row, name: str = "") -> dict[str, Any]:
  """Write an MRQA set in SQuAD's form, maybe with its name in front."""
  return _question_answering(
    row["question"], row["context"], row["answers"], row["qid"], name
  )


@seqio.map_over_dataset
def summarise(
  row: Row, text: str, summary: str, name: str = ""
) -> dict[str, Any]:
  """Write `NAME summarize: text` and the summary.

  Args:
    row: a row with both features.
    text: name of the feature with the text.
    summary: name of the feature with its summary.
    name: leading word, if any.
  """
  pieces = [*filter(None, [name]), "summarize:", row[text]]
  return {
    "inputs": tf.strings.join(pieces, separator=" "),
    "targets": row[summary],
  }


@seqio.map_over_dataset
def labelled_text(row: Row, label_words: Sequence[str]) -> dict[str, Any]:
  """Write the text as it is, and the label's word."""
  return {
    "inputs": row["text"],
    "targets": _label_word(row["label"], label_words),
  }


def _question_answering(
  question: tf.Tensor,
  context: tf.Tensor,
  answers: tf.Tensor,
  key: tf.Tensor,
  name: str = "",
) -> dict[str, Any]:
  answers = _pad_punctuation(answers)
  pieces = [
    *filter(None, [name]),
    "question:",
    _pad_punctuation(question),
    "context:",
    _pad_punctuation(context),
  ]
  inputs = tf.strings.join(pieces, separator=" ")
  return {
    "inputs": _single_blanks(inputs),
    "targets": tf.cond(
      tf.size(answers) > 0,
      lambda: answers[0],
      lambda: tf.constant(spec.UNLABELLED),
    ),
    "answers": answers,
    "id": key,
  }


def _pad_punctuation(text: tf.Tensor) -> tf.Tensor:
  """Put spaces around ASCII punctuation, then make runs of blanks one space."""
  text = tf.strings.regex_replace(text, r"([[:punct:]])", r" \1 ")
  return _single_blanks(text)


def _single_blanks(text: tf.Tensor) -> tf.Tensor:
  return tf.strings.regex_replace(text, r"\s+", " ")


def _label_word(label: tf.Tensor, label_words: Sequence[str]) -> tf.Tensor:
  return tf.cond(
    tf.equal(label, -1),
    lambda: tf.constant(spec.UNLABELLED),
    lambda: tf.gather(list(label_words), label),
  )
