"""Prompts made of words: templates and label words."""
