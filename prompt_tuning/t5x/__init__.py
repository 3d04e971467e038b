"""A prompt inside T5X itself, by gin files on top of T5X's own: docs/t5x.md.

Nothing else here imports this package, and it is the only one that imports T5X.
"""

from prompt_tuning.t5x import version

version.insist()
