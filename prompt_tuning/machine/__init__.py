"""Settings for this machine's processors, memory and processes."""
