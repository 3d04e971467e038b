"""Metrics of the published tasks: pure functions, in percent, no TensorFlow.

Every metric takes postprocessed targets and predictions and returns a
dictionary; the keys are those of the T5 library, so that logs can be compared.
No metric returns NaN; each documents its value in degenerate cases.
"""
