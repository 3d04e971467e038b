"""Metrics of the published tasks: pure functions, in percent, no TensorFlow.

Every metric takes postprocessed targets and predictions and returns a
dictionary; the keys are those of the T5 library, so that logs compare. None of
them returns NaN; each says what a degenerate case gives.
"""
