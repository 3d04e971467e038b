"""Tasks, metrics, and the tokenised pipeline; the only user of TensorFlow."""

# Fills the registry of `spec`, which cannot import what imports it.
from prompt_tuning.data import catalog as catalog
