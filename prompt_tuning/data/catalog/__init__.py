"""The published tasks as specs, one benchmark per module; no TensorFlow."""
