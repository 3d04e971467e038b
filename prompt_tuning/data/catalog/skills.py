"""Generated skills as tasks: `skill_first`, `skill_sort`, and so on.

Not in the paper. They need no download. The project's own models were
pre-trained on them, except on those held out, with an instruction in words;
`instructed_skill_first` is the same task with that instruction in front: the
paper's prompt design.
"""

from prompt_tuning.data import skills, spec
from prompt_tuning.data.metrics import classification

MODULE = "prompt_tuning.data.tasks.skills"
PREFIX, INSTRUCTED_PREFIX = "skill_", "instructed_skill_"
# Every skill without its instruction, in pre-training or not.
NAMES = tuple(PREFIX + name for name in skills.SKILLS)
HELD_OUT_NAMES = tuple(PREFIX + name for name in skills.HELD_OUT)


def instructed(name: str) -> str:
  """Return the task with the instruction in front, of a `skill_` task."""
  return INSTRUCTED_PREFIX + name.removeprefix(PREFIX)


for _name in skills.ALL:
  for _prefix in (PREFIX, INSTRUCTED_PREFIX):
    spec.add(
      spec.TaskSpec(
        name=_prefix + _name,
        benchmark="skills",
        dataset=_name,
        module=MODULE,
        source=spec.GENERATED,
        splits={split: split for split in skills.SPLITS},
        metrics=(classification.accuracy,),
        eval_features=("idx",),
        content={"version": skills.VERSION},
      )
    )
