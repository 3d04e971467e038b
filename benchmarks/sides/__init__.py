"""The same prompt tuning by three programs, each in a process of its own."""
