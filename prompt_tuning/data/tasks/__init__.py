"""The seqio side of the catalogue: importing a module registers its tasks."""

from prompt_tuning.data import quiet

quiet.import_tensorflow()
