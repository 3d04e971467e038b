"""What this machine's processors, memory and processes are told."""
