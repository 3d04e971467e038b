"""The SuperGLUE and GLUE averages: published numbers, names, refusals."""

import pytest

from prompt_tuning.data import score

# Table 3 of the paper, ensemble column: (metrics by task, average).
ENSEMBLE = {
  "boolq_v102": {"accuracy": 91.7},
  "cb_v102": {"accuracy": 100.0, "mean_3class_f1": 100.0},
  "copa_v102": {"accuracy": 100.0},
  "multirc_v102": {"exact_match": 67.1, "f1": 89.4},
  "record_v102": {"em": 93.2, "f1": 93.9},
  "rte_v102": {"accuracy": 93.5},
  "wic_v102": {"accuracy": 77.4},
  "wsc_v102_simple_eval": {"accuracy": 96.2},
}
AVERAGE = {
  "boolq_v102": {"accuracy": 91.1},
  "cb_v102": {"accuracy": 99.3, "mean_3class_f1": 99.0},
  "copa_v102": {"accuracy": 98.8},
  "multirc_v102": {"exact_match": 65.7, "f1": 88.7},
  "record_v102": {"em": 92.7, "f1": 93.4},
  "rte_v102": {"accuracy": 92.6},
  "wic_v102": {"accuracy": 76.2},
  "wsc_v102_simple_eval": {"accuracy": 95.8},
}
# The regression row of a public re-run of a multi-task T5 1.1 base.
RERUN = {
  "boolq_v102": {"accuracy": 78.47},
  "cb_v102": {"accuracy": 87.5, "mean_3class_f1": 83.93},
  "copa_v102": {"accuracy": 50.0},
  "multirc_v102": {"exact_match": 33.26, "f1": 73.81},
  "record_v102": {"em": 70.09, "f1": 71.34},
  "rte_v102": {"accuracy": 78.7},
  "wic_v102": {"accuracy": 63.64},
  "wsc_v102_simple_eval": {"accuracy": 75.0},
}


def results(table, prefix="taskless_super_glue_", suffix=""):
  return {f"{prefix}{name}{suffix}": m for name, m in table.items()}


@pytest.mark.parametrize(
  ("table", "published", "digits"),
  [(ENSEMBLE, 91.3, 1), (AVERAGE, 90.5, 1), (RERUN, 69.47, 2)],
)
def test_published_averages(table, published, digits):
  assert round(score.aggregate(results(table)), digits) == published


def test_parts_of_a_group_are_averaged_first():
  groups = [91.7, 100, 100, (67.1 + 89.4) / 2, (93.2 + 93.9) / 2]
  groups += [93.5, 77.4, 96.2]
  got = score.aggregate(results(ENSEMBLE))
  assert got == pytest.approx(sum(groups) / 8)


@pytest.mark.parametrize("prefix", ["super_glue_", "taskless_super_glue_"])
@pytest.mark.parametrize("suffix", ["", "_examples", "_k16_seed3"])
def test_any_variant_of_a_name_will_do(prefix, suffix):
  table = dict(ENSEMBLE)
  if "_k16" in suffix:  # the WSC evaluation task has no training split
    got = results(table, prefix, suffix)
    del got[f"{prefix}wsc_v102_simple_eval{suffix}"]
    got[f"{prefix}wsc_v102_simple_eval"] = {"accuracy": 96.2}
  else:
    got = results(table, prefix, suffix)
  assert round(score.aggregate(got), 1) == 91.3


def test_what_does_not_count_is_ignored():
  more = {
    **results(ENSEMBLE),
    "taskless_dpr_v001_simple": {"accuracy": 0.0},
    "taskless_super_glue_axb_v102": {},
    "taskless_super_glue_wsc_v102_simple_train": {},
    "taskless_glue_rte_v002": {"accuracy": 0.0},
    "squad_v010_allanswers": {"em": 0.0, "f1": 0.0},
  }
  assert score.aggregate(more) == score.aggregate(results(ENSEMBLE))


def test_missing_parts_are_all_named():
  table = {k: v for k, v in ENSEMBLE.items() if k != "copa_v102"}
  table["cb_v102"] = {"accuracy": 100.0}
  with pytest.raises(ValueError, match="2 of its parts are missing") as error:
    score.aggregate(results(table))
  message = str(error.value)
  assert "CB: mean_3class_f1 of super_glue_cb" in message
  assert "COPA: accuracy of super_glue_copa" in message


def test_not_a_number_is_no_score():
  table = {**ENSEMBLE, "rte_v102": {"accuracy": float("nan")}}
  with pytest.raises(ValueError, match="RTE: accuracy of rte is nan"):
    score.aggregate(results(table))


def test_two_variants_of_a_task_are_ambiguous():
  both = results(ENSEMBLE) | results(ENSEMBLE, "super_glue_")
  with pytest.raises(ValueError, match="Two results for boolq"):
    score.aggregate(both)


def test_unknown_names():
  with pytest.raises(ValueError, match="Unknown task or mixture 'boolk'"):
    score.aggregate({"boolk": {"accuracy": 1.0}})
  with pytest.raises(ValueError, match="Unknown benchmark 'superglue'"):
    score.aggregate({}, "superglue")


def test_glue():
  table = {
    "cola": {"matthews_corrcoef": 60.0},
    "sst2": {"accuracy": 95.0},
    "mrpc": {"f1": 91.0, "accuracy": 87.0},
    "stsb": {"pearson_corrcoef": 90.0, "spearman_corrcoef": 88.0},
    "qqp": {"f1": 88.0, "accuracy": 92.0},
    "mnli_matched": {"accuracy": 87.0},
    "mnli_mismatched": {"accuracy": 86.0},
    "qnli": {"accuracy": 93.0},
    "rte": {"accuracy": 77.5},
    "wnli": {"accuracy": 0.0},  # does not count
  }
  given = {f"taskless_glue_{name}_v200": m for name, m in table.items()}
  got = score.aggregate(given, "glue")
  groups = [60, 95, 89, 89, 90, 86.5, 93, 77.5]
  assert got == pytest.approx(sum(groups) / 8)
