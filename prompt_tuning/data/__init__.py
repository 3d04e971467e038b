"""Tasks, metrics, and the tokenised pipeline; the only user of TensorFlow."""
