"""Soft prompts for a frozen T5, at every scale, in JAX."""

__version__ = "0.1.0"
