"""Gin files for T5X, which finds them by the name of this package."""
