"""Tuning methods: small Flax modules that produce a `Delta`."""
