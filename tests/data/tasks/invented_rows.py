"""Invented rows in the form in which TFDS generates each data set's.

They cover the quirks of the text forms. Labels are given by name where TFDS
has names; -1 is a row without a label. Keys are `benchmark/dataset`.
"""

PASSAGE = "Lake Orn lies north of Norvik. It froze in 1931."
CONTEXT = "Mira opened the bakery in 1989 (with two ovens)."
HIGHLIGHTS = (
  "The harbour of Norvik was closed on Monday"
  "\n@highlight\nA crane fell into the water."
  '\n@highlight\n"Nobody was hurt," said Ana Ruiz, "luckily"'
  "\n@highlight\nWork goes on"
)


def nli(label, idx, first="hypothesis", second="premise"):
  """One sentence pair."""
  pair = {first: "The shop was open.", second: "The shop closed at noon."}
  return {**pair, "label": label, "idx": idx}


def question(idx, answers, **texts):
  """One row of SQuAD's form."""
  return {
    "id": idx,
    "title": "Bakery",
    "context": CONTEXT,
    "question": "When did Mira open the bakery?",
    "answers": {"text": answers, "answer_start": [0] * len(answers)},
    **texts,
  }


def mrqa(key, answers, **texts):
  """One row of MRQA's form."""
  spans = {"start": [0], "end": [1]}
  no_tokens = {"tokens": ["x"], "offsets": [0]}
  return {
    "subset": "Invented",
    "context": CONTEXT,
    "context_tokens": no_tokens,
    "qid": key,
    "question": "Who opened the bakery?",
    "question_tokens": no_tokens,
    "detected_answers": [
      {"text": text, "char_spans": spans, "token_spans": spans}
      for text in answers
    ],
    "answers": answers,
    **texts,
  }


def wsc(text, candidate, pronoun, index, label, idx):
  """One row of WSC's form."""
  return {
    "text": text,
    "span1_text": candidate,
    "span1_index": 0,
    "span2_text": pronoun,
    "span2_index": index,
    "label": label,
    "idx": idx,
  }


def multirc(paragraph, text, answer, label, idx):
  """One row of MultiRC's form; idx: paragraph, question, answer."""
  keys = ("paragraph", "question", "answer")
  return {
    "paragraph": paragraph,
    "question": text,
    "answer": answer,
    "label": label,
    "idx": dict(zip(keys, idx, strict=True)),
  }


def record(query, answers, idx):
  """One row of ReCoRD's form; idx: passage, query."""
  return {
    "passage": HIGHLIGHTS,
    "query": query,
    "entities": ["Ana Ruiz", "Norvik"],
    "answers": answers,
    "idx": dict(zip(("passage", "query"), idx, strict=True)),
  }


SUPER_GLUE = {
  "boolq": [
    {"question": q, "passage": PASSAGE, "label": label, "idx": i}
    for i, (q, label) in enumerate(
      [
        ("is lake orn south of norvik", "False"),
        ("did lake orn freeze in 1931", "True"),
        ("is lake orn deep", -1),
      ]
    )
  ],
  "cb": [
    nli("entailment", 0),
    nli("contradiction", 1),
    nli("neutral", 2),
    nli(-1, 3),
  ],
  "copa": [
    {
      "premise": "The glass fell off the table.",
      "choice1": "It broke.",
      "choice2": "It was full.",
      "question": "effect",
      "label": label,
      "idx": i,
    }
    for i, label in enumerate(["choice1", "choice2", -1])
  ],
  "multirc": [
    multirc(
      "<b>Sent 1: </b>Ole met Kari.<br><b>Sent 2: </b>They sang.<br>",
      "Who sang?",
      "Ole and Kari<br>",
      "True",
      (4, 2, 0),
    ),
    multirc("Ole met Kari.", "Who  sang?", "Nobody", "False", (4, 2, 1)),
    multirc("Ole met Kari.", "Who met?", "Ole", -1, (5, 3, 0)),
  ],
  "record": [
    record("The city of @placeholder was quiet.", ["Norvik"], (7, 0)),
    record("@placeholder spoke.", ["Ana Ruiz", "Ruiz"], (7, 1)),
    record("@placeholder will reopen.", [], (8, 2)),
  ],
  "rte": [nli("entailment", 0), nli("not_entailment", 1), nli(-1, 2)],
  "wic": [
    {
      "word": "bank",
      "sentence1": "She sat on the bank of the river.",
      "sentence2": "The bank closes at four.",
      **{"start1": 15, "end1": 19, "start2": 4, "end2": 8},
      "label": label,
      "idx": i,
    }
    for i, label in enumerate(["False", "True", -1])
  ],
  "wsc": [
    wsc("Ida thanked Liv because she had helped .", "Liv", "she", 4, "True", 0),
    wsc(
      "Ida thanked Liv because she had helped .", "Ida", "she", 4, "False", 1
    ),
    # As in two official rows: punctuation is glued to the pronoun ...
    wsc('Ida saw Ben. "Wait for him," she said. ', "Ben", "him", 5, "True", 2),
    # ... and the index is one too small.
    wsc("Ida may use it , but not now", "it", "it", 2, "True", 3),
    # Two blanks in a row hold an empty word, which counts.
    wsc("Ida  thanked Liv since she helped", "Liv", "she", 5, -1, 4),
  ],
  "dpr": [
    {
      "sentence": "The cat left the dog because it barked, so it was quiet.",
      "pronoun": "it",
      "candidates": ["The cat", "the dog"],
      "label": 1,
    },
    {
      "sentence": "She likes herself, but he fears him.",
      "pronoun": "him",
      "candidates": ["he", "she"],
      "label": 0,
    },
  ],
  "axb": [
    nli("entailment", 0, first="sentence2", second="sentence1"),
    nli("not_entailment", 1, first="sentence2", second="sentence1"),
  ],
  "axg": [nli("entailment", 0), nli("not_entailment", 1)],
}


def sentence(text, label, idx):
  """One row of CoLA's or SST-2's form."""
  return {"sentence": text, "label": label, "idx": idx}


def pair(first, second, label, idx, names=("sentence1", "sentence2")):
  """One row with two texts."""
  return {names[0]: first, names[1]: second, "label": label, "idx": idx}


_NLI = [
  nli("entailment", 0),
  nli("neutral", 1),
  nli("contradiction", 2),
  nli(-1, 3),
]
GLUE = {
  "cola": [
    sentence("The boat sank.", "acceptable", 0),
    sentence("The boat sank sank the.", "unacceptable", 1),
    sentence("Boats.", -1, 2),
  ],
  "sst2": [
    sentence("a warm , funny film ", "positive", 0),
    sentence("dull ", "negative", 1),
  ],
  "mrpc": [
    pair("He sold the firm.", "The firm was sold.", "equivalent", 0),
    pair("He sold the firm.", "He bought it.", "not_equivalent", 1),
  ],
  "qqp": [
    pair("How old is Norvik?", "What is Norvik's age?", "duplicate", 0,
         ("question1", "question2")),
    pair("How old is Norvik?", "Where is Norvik?", "not_duplicate", 1,
         ("question1", "question2")),
  ],
  "stsb": [
    pair("A man cooks.", "A man is cooking.", score, i)
    # 2.5 * 5 = 12.5 rounds to the even 12; 4.75 lies between two fifths.
    for i, score in enumerate([5.0, 4.75, 2.5, 3.857, 0.0, 0.09, 1, -1])
  ],
  "mnli": _NLI,
  "mnli_matched": _NLI,
  "mnli_mismatched": _NLI,
  "qnli": [
    pair("Who sank?", "The boat sank.", label, i, ("question", "sentence"))
    for i, label in enumerate(["entailment", "not_entailment"])
  ],
  "rte": [
    pair("The shop closed.", "It was open.", label, i)
    for i, label in enumerate(["entailment", "not_entailment"])
  ],
  "wnli": [
    pair("Ida thanked Liv.", "Liv was thanked.", label, i)
    for i, label in enumerate(["not_entailment", "entailment"])
  ],
  "ax": [nli(-1, 0)],
}  # fmt: skip

TRANSFER = {
  "mrpc_from_qqp": GLUE["mrpc"],
  "qqp_from_mrpc": GLUE["qqp"],
}

_QUIRKS = {
  # Non-ASCII punctuation is left alone; runs of blanks become one.
  "question": "Who's  Mira -- the baker?",
  "context": "Mira\n\nbaked “rye” bread, at 5 a.m.\t(daily).",
}
QA = {
  "squad": [
    question("q0", ["1989", "in 1989"]),
    question("q1", ["rye” bread", "bread, at 5"], **_QUIRKS),
  ],
  **{
    dataset: [
      mrqa("m0", ["Mira"]),
      mrqa("m1", ["5 a.m.", "(daily)"], **_QUIRKS),
    ]
    for dataset in (
      *("bio_asq", "drop", "duo_rc", "race", "relation_extraction"),
      *("textbook_qa", "news_qa", "trivia_qa", "search_qa", "hotpot_qa"),
      "natural_questions",
    )
  },
}

_DBPEDIA = (
  *("Company", "EducationalInstitution", "Artist", "Athlete"),
  *("OfficeHolder", "MeanOfTransportation", "Building", "NaturalPlace"),
  *("Village", "Animal", "Plant", "Album", "Film", "WrittenWork"),
)
TEXT_CLASSIFICATION = {
  "ag_news": [
    {"title": "Norvik wins", "description": "Again.", "label": label}
    for label in ("World", "Sports", "Business", "Sci/Tech")
  ],
  "dbpedia": [
    {"title": "Orn", "content": "Orn is a thing.", "label": label}
    for label in _DBPEDIA
  ],
  "imdb": [
    {"text": "I laughed.<br /><br />Twice.", "label": "pos"},
    {"text": "I slept.", "label": "neg"},
  ],
  "amazon": [
    {"text": "It broke after a day.", "label": label}
    for label in ("1", "2", "3", "4", "5")
  ],
  "amazon_polarity": [
    {"text": "It broke after a day.", "label": label}
    for label in ("negative", "positive")
  ],
  "yahoo": [
    {"title": "Why?", "content": "", "answer": "Because.", "label": label}
    for label in (
      *("Society & Culture", "Science & Mathematics", "Health"),
      *("Education & Reference", "Computers & Internet", "Sports"),
      *("Business & Finance", "Entertainment & Music"),
      *("Family & Relationships", "Politics & Government"),
    )
  ],
  "sst5": [
    {"sentence": "It works .", "label": label}
    for label in (
      *("very negative", "negative", "neutral", "positive", "very positive"),
    )
  ],
  "race": [
    {
      **{"question": "Who sank?", "a": "Mira", "b": "The boat"},
      **{"c": "Nobody", "d": "All", "article": "The boat  sank."},
      "label": label,
    }
    for label in "ABCD"
  ],
}

# Breaks of lines and double blanks, which some forms keep.
_TEXT, _SUMMARY = "The boat  sank.\nNobody drowned.", "A boat sank ."
SUMMARIZATION = {
  "xsum": [{"document": _TEXT, "summary": _SUMMARY}],
  "cnn_dailymail": [{"article": _TEXT, "highlights": _SUMMARY}],
}
_C4 = [{"text": _TEXT}]
C4 = {
  "bart_text_infilling": _C4,
  "bart_token_deletion": _C4,
  "random_positive_negative_targets": _C4,
}


def _inference(premise, labels):
  """Rows of one NLI set; its context is called `premise`."""
  texts = {"hypothesis": "The shop  was open.", premise: "It closed at noon."}
  return [{**texts, "label": label} for label in labels]


_THREE = ("entailment", "neutral", "contradiction")
SPOT = {
  **{
    f"glue_{dataset}": GLUE[dataset]
    for dataset in (
      *("cola", "sst2", "mrpc", "qqp", "stsb", "qnli", "rte", "wnli"),
    )
  },
  "glue_mnli_train": GLUE["mnli"],
  "glue_mnli_validation_matched": GLUE["mnli"],
  "glue_mnli_validation_mismatched": GLUE["mnli"],
  **{
    f"mrqa_{dataset}": [mrqa("m0", ["Mira"])]
    for dataset in (
      *("squad", "news_qa", "trivia_qa", "search_qa", "hotpot_qa"),
      "natural_questions",
    )
  },
  **{f"anli_{r}": _inference("context", range(3)) for r in ("r1", "r2", "r3")},
  "doc_nli": _inference("premise", (0, 1)),
  "snli": _inference("premise", (0, 1, 2, -1)),
  "aeslc": [{"email_body": _TEXT, "subject_line": _SUMMARY}],
  "billsum": [{"text": _TEXT, "summary": _SUMMARY}],
  "gigaword": [{"document": _TEXT, "summary": _SUMMARY}],
  "cnn_dailymail": [{"article": _TEXT, "highlights": _SUMMARY}],
  "multi_news": [{"document": _TEXT, "summary": _SUMMARY}],
  "samsum": [{"dialogue": _TEXT, "summary": _SUMMARY}],
  "newsroom": [{"text": _TEXT, "summary": _SUMMARY}],
}
RECYCLING = {
  "sst2": GLUE["sst2"],
  "imdb": TEXT_CLASSIFICATION["imdb"],
  "qqp": GLUE["qqp"],
  "record": SUPER_GLUE["record"],
}
PERCEPTRON = {
  **{
    f"glue_{dataset}": GLUE[dataset]
    for dataset in ("cola", "sst2", "mrpc", "qqp", "qnli", "rte")
  },
  **{
    f"super_glue_{dataset}": SUPER_GLUE[dataset]
    for dataset in ("boolq", "cb", "copa", "rte", "wic")
  },
}
_SENTENCE = {
  "text": "The baker  sold [E1] bread .",
  "subject": "baker ",
  "object": "bread",
}


def _relations(*labels):
  return [{**_SENTENCE, "label": label} for label in labels]


_TURN = {
  **_SENTENCE,
  "pair": "0/1",
  "relations": ["per:client", "per:pet"],
  "evaluable": ["per:pet"],
  "arguments_seen": 1,
  "label": 6,
}
RELATION = {
  "semeval2010_task8": _relations(0, 18),
  "tacred": _relations(13, 41),
  "tacrev": _relations(13, 41),
  "retacred": _relations(0, 39),
  "dialogre": [_TURN],
  "dialogre_conversational": [_TURN],
}

ROWS = {
  "super_glue": SUPER_GLUE,
  "glue": GLUE,
  "glue_transfer": TRANSFER,
  "qa": QA,
  "summarization": SUMMARIZATION,
  "c4": C4,
  "spot": SPOT,
  "recycling": RECYCLING,
  "perceptron": PERCEPTRON,
  "text_classification": TEXT_CLASSIFICATION,
  "relation": RELATION,
}
