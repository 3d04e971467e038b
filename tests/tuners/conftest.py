"""Fixtures of the methods' tests."""

from tests.tuners.peft_twins import family

__all__ = ["family"]
