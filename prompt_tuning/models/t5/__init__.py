"""T5: configuration, network, sites and decoding."""
