"""A prompt inside T5X itself, by gin files on top of T5X's own: docs/t5x.md.

No other package here imports this one, and only this one imports T5X.
"""

from prompt_tuning.t5x import version

version.insist()
