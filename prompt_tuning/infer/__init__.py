"""Prediction, scoring and evaluation with a frozen model and prompts."""
