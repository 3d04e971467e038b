"""Types and rules that every other package shares; needs jax and numpy only."""
