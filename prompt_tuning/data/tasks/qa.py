"""Register SQuAD v1.1 and the MRQA 2019 sets."""

from prompt_tuning.data import preprocessors, spec
from prompt_tuning.data.tasks import registration


def _rendering(task: spec.TaskSpec) -> list[registration.Preprocessor]:
  is_squad = task.dataset == "squad"
  return [preprocessors.squad if is_squad else preprocessors.mrqa]


registration.add_catalogue(__name__, _rendering)
