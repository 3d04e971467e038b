"""T5X's settings that have another name here, for error messages.

Macros and flags keep T5X's names; T5X's own classes are not here to configure.
"""

# T5X's class and parameter, without their scope -> what to set instead.
_INSTEAD = {
  "partitioning.PjitPartitioner.num_partitions": "MODEL_PARALLEL",
  "partitioning.PjitPartitioner.model_parallel_submesh": "MODEL_PARALLEL",
  "trainer.Trainer.num_microbatches": "NUM_MICROBATCHES",
  "utils.DatasetConfig.batch_size": "BATCH_SIZE",
  "utils.DatasetConfig.pack": "BATCHING",
  "utils.DatasetConfig.seed": "RANDOM_SEED",
  "utils.DatasetConfig.split": "TRAIN_SPLIT or EVAL_SPLIT",
  "utils.DatasetConfig.task_feature_lengths": "TASK_FEATURE_LENGTHS",
  "utils.DatasetConfig.use_cached": "USE_CACHED_TASKS",
  "utils.RestoreCheckpointConfig.path": "INITIAL_CHECKPOINT_PATH",
  "utils.RestoreCheckpointConfig.dtype": "RESTORE_DTYPE",
  "utils.SaveCheckpointConfig.period": "CHECKPOINT_PERIOD",
  "utils.SaveCheckpointConfig.keep": "KEEP_CHECKPOINTS",
  "utils.create_learning_rate_scheduler.base_learning_rate": "LEARNING_RATE",
}


def hint(selector: str, parameter: str) -> str:
  """Say what stands for one of T5X's settings.

  Args:
    selector: such as `utils.DatasetConfig`.
    parameter: such as `batch_size`.

  Returns:
    A sentence, or the empty string if it is none of them.
  """
  name = f"{selector}.{parameter}"
  instead = _INSTEAD.get(name)
  return f"T5X's {name} is the macro {instead} here." if instead else ""
