"""Relations between two words of a text: SemEval, TACRED's family, DialogRE.

Not in the paper: the benchmarks of prompts for relations. Names follow the
pattern of the others. A row has the text, its two arguments and their types.
For a sentence, it also has the text with both arguments marked, as a whole and
in five pieces, which a template may shorten one by one.
"""

import functools

from prompt_tuning.data import postprocessors, spec
from prompt_tuning.data.catalog.variants import TASKLESS, variants
from prompt_tuning.data.metrics import classification, relation

MODULE = "prompt_tuning.data.tasks.relation"

# Dataset -> TFDS name; `prompt-tuning data prepare` makes their directories.
SOURCES = {
  "semeval2010_task8": "semeval2010_task8:1.0.0",
  "tacred": "tacred:1.0.0",
  "tacrev": "tacrev:1.0.0",
  "retacred": "retacred:1.0.0",
  "dialogre": "dialogre:1.0.0",
  "dialogre_conversational": "dialogre_conversational:1.0.0",
}
NO_RELATION = "no_relation"
_TACRED = (
  *("org:founded", "org:subsidiaries", "per:date_of_birth"),
  *("per:cause_of_death", "per:age", "per:stateorprovince_of_birth"),
  *("per:countries_of_residence", "per:country_of_birth"),
  *("per:stateorprovinces_of_residence", "org:website"),
  *("per:cities_of_residence", "per:parents", "per:employee_of", NO_RELATION),
  *("per:city_of_birth", "org:parents", "org:political/religious_affiliation"),
  *("per:schools_attended", "per:country_of_death", "per:children"),
  *("org:top_members/employees", "per:date_of_death", "org:members"),
  *("org:alternate_names", "per:religion", "org:member_of"),
  *("org:city_of_headquarters", "per:origin", "org:shareholders"),
  *("per:charges", "per:title", "org:number_of_employees/members"),
  *("org:dissolved", "org:country_of_headquarters", "per:alternate_names"),
  *("per:siblings", "org:stateorprovince_of_headquarters", "per:spouse"),
  *("per:other_family", "per:city_of_death", "per:stateorprovince_of_death"),
  "org:founded_by",
)
_DIALOGRE = (
  *("per:positive_impression", "per:negative_impression", "per:acquaintance"),
  *("per:alumni", "per:boss", "per:subordinate", "per:client", "per:dates"),
  *("per:friends", "per:girl/boyfriend", "per:neighbor", "per:roommate"),
  *("per:children", "per:other_family", "per:parents", "per:siblings"),
  *("per:spouse", "per:place_of_residence", "per:place_of_birth"),
  *("per:visited_place", "per:origin", "per:employee_or_member_of"),
  *("per:schools_attended", "per:works", "per:age", "per:date_of_birth"),
  *("per:major", "per:place_of_work", "per:title", "per:alternate_names"),
  *("per:pet", "gpe:residents_of_place", "gpe:births_in_place"),
  *("gpe:visitors_of_place", "org:employees_or_members", "org:students"),
  relation.UNANSWERABLE,
)
# Names of the TFDS `label` feature, in the order of Chen et al.'s `rel2id.json`
# (2022).
CLASS_NAMES = {
  "semeval2010_task8": (
    *("Other", "Component-Whole(e2,e1)", "Instrument-Agency(e2,e1)"),
    *("Member-Collection(e1,e2)", "Cause-Effect(e2,e1)"),
    *("Entity-Destination(e1,e2)", "Content-Container(e1,e2)"),
    *("Message-Topic(e1,e2)", "Product-Producer(e2,e1)"),
    *("Member-Collection(e2,e1)", "Entity-Origin(e1,e2)"),
    *("Cause-Effect(e1,e2)", "Component-Whole(e1,e2)"),
    *("Message-Topic(e2,e1)", "Product-Producer(e1,e2)"),
    *("Entity-Origin(e2,e1)", "Content-Container(e2,e1)"),
    *("Instrument-Agency(e1,e2)", "Entity-Destination(e2,e1)"),
  ),
  "tacred": _TACRED,
  "tacrev": _TACRED,
  "retacred": (
    *(NO_RELATION, "org:members", "per:siblings", "per:spouse"),
    *("org:country_of_branch", "per:country_of_death", "per:parents"),
    *("per:stateorprovinces_of_residence", "org:top_members/employees"),
    *("org:dissolved", "org:number_of_employees/members"),
    *("per:stateorprovince_of_death", "per:origin", "per:children"),
    *("org:political/religious_affiliation", "per:city_of_birth"),
    *("per:title", "org:shareholders", "per:employee_of", "org:member_of"),
    *("org:founded_by", "per:countries_of_residence", "per:other_family"),
    *("per:religion", "per:identity", "per:date_of_birth"),
    *("org:city_of_branch", "org:alternate_names", "org:website"),
    *("per:cause_of_death", "org:stateorprovince_of_branch"),
    *("per:schools_attended", "per:country_of_birth", "per:date_of_death"),
    *("per:city_of_death", "org:founded", "per:cities_of_residence"),
    *("per:age", "per:charges", "per:stateorprovince_of_birth"),
  ),
  "dialogre": _DIALOGRE,
  "dialogre_conversational": _DIALOGRE,
}
# Features of a row that are texts, besides `label`.
ARGUMENTS = ("text", "subject", "object", "subject_type", "object_type")
# The text with both arguments marked, as a whole and in pieces; the pieces of
# the arguments include the markers. Markup in the text itself stays text.
MARKED = ("marked", "before", "first", "between", "second", "after")
# Features for a dialogue's metrics only: the pair of arguments, all its
# relations, and those that can be judged at a turn.
PAIR = ("pair",)
LISTS = ("relations", "evaluable")
NUMBERS = ("arguments_seen",)


def is_dialogue(dataset: str) -> bool:
  """Whether rows are turns of a dialogue, whose arguments have no positions."""
  return dataset.startswith("dialogre")


def text_features(dataset: str) -> tuple[str, ...]:
  """Return the names of a data set's features that are texts."""
  return (*ARGUMENTS, *(PAIR if is_dialogue(dataset) else MARKED))


def _scoring(
  dataset: str,
) -> tuple[spec.Postprocess, tuple[spec.Metric, ...]]:
  """Return the postprocessor and the metrics of a data set."""
  names = CLASS_NAMES[dataset]
  if is_dialogue(dataset):
    score = relation.dialogue_f1
    if dataset == "dialogre_conversational":
      score = relation.conversational_f1
    return postprocessors.relations, (score, relation.statistics(names))
  scores: tuple[spec.Metric, ...]
  if dataset == "semeval2010_task8":
    micro = relation.micro_f1_without(names, "Other")
    scores = (micro, relation.official_macro_f1(names))
  else:
    scores = (relation.micro_f1_without(names, NO_RELATION),)
  statistics = functools.partial(classification.label_statistics, names)
  return postprocessors.LabelId(names), (*scores, statistics)


def _add(dataset: str, prefix: str, suffix: str) -> None:
  splits = ["train", "validation", "test"]
  if dataset == "dialogre_conversational":
    splits.remove("train")
  postprocess, metrics = _scoring(dataset)
  judged = (*PAIR, *LISTS, *NUMBERS) if is_dialogue(dataset) else ()
  spec.add(
    spec.TaskSpec(
      name=f"{prefix}{dataset}_v100{suffix}",
      benchmark="relation",
      dataset=dataset,
      module=MODULE,
      source=SOURCES[dataset],
      splits={split: split for split in splits},
      label_words=CLASS_NAMES[dataset],
      postprocess=postprocess,
      metrics=metrics,
      eval_features=judged,
      scarce_classes=True,
      log_examples=bool(suffix),
    )
  )


for _prefix, _suffix in variants(("", TASKLESS)):
  for _dataset in SOURCES:
    _add(_dataset, _prefix, _suffix)
