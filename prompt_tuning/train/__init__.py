"""The training step, its optimizers and the loop around it."""
