"""Every task and mixture of the original has its name here."""

import itertools
import re

import pytest

from prompt_tuning.data import spec
from prompt_tuning.jobs import task_modules

SUPER_GLUE = "{boolq,cb,copa,multirc,record,rte,wic,axb,axg}"
GLUE = (
  "{cola,sst2,mrpc,qqp,stsb,mnli,mnli_mismatched,mnli_matched,qnli,rte,wnli,ax}"
)
OUT = "{bio_asq,drop,duo_rc,race,relation_extraction,textbook_qa}"
IN = "{news_qa,trivia_qa,search_qa,hotpot_qa,natural_questions}"
TRANSFER = "{mrpc_from_qqp,qqp_from_mrpc}"
GLUE_6, SUPER_GLUE_5 = (
  "{cola,sst2,mrpc,qqp,qnli,rte}",
  "{boolq,cb,copa,rte,wic}",
)
PARTS = (
  "{perceptron,generation}{_train,_test,}",
  "rank_classification_{validation,test}",
)
ANY, BARE = "{,taskless_,task_index_}", "{taskless_,task_index_}"
WORDS = "{a_b,0_1,unique_duplicate,not_spc_duplicate_duplicate}"
# Alternatives in braces, one of which may be empty; in the table's order.
PATTERNS = [
  f"{ANY}super_glue_{SUPER_GLUE}_v102_examples",
  f"{BARE}super_glue_{SUPER_GLUE}_v102",
  f"{BARE}dpr_v001_simple{{,_examples}}",
  "super_glue_wsc_v102_simple_eval_examples",
  f"{BARE}super_glue_wsc_v102_simple_{{train,eval}}{{,_examples}}",
  f"{ANY}glue_{GLUE}_{{v002,v200}}_examples",
  f"{BARE}glue_{GLUE}_{{v002,v200}}",
  f"{ANY}glue_{TRANSFER}_v002{{,_examples}}",
  "squad_v010_allanswers_examples",
  f"mrqa_{OUT}_v100_examples",
  f"mrqa_{IN}_v100_examples",
  "{xsum_v110,cnn_dailymail_v310}_examples",
  "c4_v220_bart_{text_infilling,token_deletion}",
  "spot_glue_{cola,sst2,mrpc,qqp,stsb,qnli,rte,wnli}_v200",
  "spot_glue_mnli_{train,validation_matched,validation_mismatched}_v200",
  "spot_mrqa_squad_v100",
  f"spot_mrqa_{IN}_v100",
  "spot_anli_{r1,r2,r3}_v010",
  "spot_{doc_nli_v100,snli_v110}",
  "spot_{aeslc_v100,billsum_v300,gigaword_v120,cnn_dailymail_v320}",
  "spot_{multi_news_v100,samsum_v100,newsroom_v100}",
  "pr:glue_sst2_v200_{train,test,test_rc}",
  "pr:imdb_v100_{0_1,negative_positive}_verbalizers_{train,test,test_rc}",
  f"pr:glue_qqp_v200_{WORDS}_verbalizers_{{training,test,rc,rc_normed}}",
  "pr:super_glue_record_v102_{training,test,rc}",
  "c4_v220_random_positive_negative_targets",
  *(f"glue_{GLUE_6}_v200_{part}" for part in PARTS),
  *(f"super_glue_{SUPER_GLUE_5}_v102_{part}" for part in PARTS),
  # Mixtures.
  "super_glue_wsc_and_dev_v102_simple_examples",
  f"{BARE}super_glue_wsc_and_dev_v102_simple{{,_examples}}",
  "task_index_super_glue{,_with_dpr}_v102_examples_proportional",
  f"{ANY}glue_mnli_and_dev_{{v002,v200}}_examples",
  f"{ANY}glue_{TRANSFER}_zeroshot_v002{{,_examples}}",
  f"squad_to_{OUT}_examples",
  "squad_to_mrqa_examples",
  "spot_glue_mnli_and_dev_v200",
  "pr:imdb_v100_{0_1,negative_positive}_verbalizers{,_eval}",
  f"pr:glue_qqp_v200_{WORDS}_verbalizers{{,_eval}}",
  "pr:super_glue_record_v102{,_eval}",
  "pr:glue_sst2_v200{,_eval}",
]
MODULES = (
  "prompt_tuning.data.{super_glue,glue,glue_transfer,qa,summarization,c4,tasks}",
  "prompt_tuning.spot.data.{glue,mrqa,nli,summarization,tasks}",
  "prompt_tuning.recycling.data.{c4,imdb,qqp,record,sst2}",
  "prompt_tuning.extended.perceptron.data.tasks",
)


def expand(pattern):
  """Write out every choice of alternatives."""
  parts = [part.split(",") for part in re.split("[{}]", pattern)]
  return ["".join(choice) for choice in itertools.product(*parts)]


def test_the_original_has_401_and_so_have_we():
  names = {name for pattern in PATTERNS for name in expand(pattern)}
  assert len(names) == 401
  assert names <= set(spec.names())


def test_modules_of_the_original_need_no_import():
  task_modules.ensure(name for module in MODULES for name in expand(module))


@pytest.mark.parametrize(
  ("name", "members"),
  [
    (
      "task_index_super_glue_v102_examples_proportional",
      {
        "task_index_super_glue_wsc_v102_simple_train": 259.0,
        "task_index_super_glue_wsc_v102_simple_eval_examples": 0.0,
        "task_index_super_glue_boolq_v102_examples": 9427.0,
        "task_index_super_glue_cb_v102_examples": 250.0,
        "task_index_super_glue_copa_v102_examples": 400.0,
        "task_index_super_glue_multirc_v102_examples": 27243.0,
        "task_index_super_glue_record_v102_examples": 138854.0,
        "task_index_super_glue_rte_v102_examples": 2490.0,
        "task_index_super_glue_wic_v102_examples": 5428.0,
      },
    ),
    (
      "pr:glue_qqp_v200_0_1_verbalizers_eval",
      dict.fromkeys(
        (
          "pr:glue_qqp_v200_0_1_verbalizers_rc",
          "pr:glue_qqp_v200_0_1_verbalizers_rc_normed",
          "pr:glue_qqp_v200_0_1_verbalizers_test",
        ),
        1.0,
      ),
    ),
    (
      "super_glue_cb_v102_generation",
      dict.fromkeys(
        (
          "super_glue_cb_v102_rank_classification_validation",
          "super_glue_cb_v102_rank_classification_test",
          "super_glue_cb_v102_generation_train",
          "super_glue_cb_v102_generation_test",
        ),
        1.0,
      ),
    ),
  ],
)
def test_mixtures_are_made_of_the_originals_tasks(name, members):
  assert spec.get(name).rates == members
  with_dpr = "task_index_super_glue_with_dpr_v102_examples_proportional"
  dpr = {"task_index_dpr_v001_simple_examples": 1322.0}
  if "proportional" in name:
    assert spec.get(with_dpr).rates == {**dpr, **members}


def test_held_out_rows_are_no_training_rows():
  task = spec.task("glue_sst2_v200_perceptron_train")
  assert task.splits == {
    "train": "train[:-2000]",
    "validation": "train[-2000:]",
  }
  assert task.ranked == "mean"
  assert spec.task("pr:glue_qqp_v200_0_1_verbalizers_rc").ranked == "sum"
  assert spec.task("pr:super_glue_record_v102_rc").candidates == "entities"
