"""Templates and label words."""
