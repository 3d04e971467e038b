"""The same prompt tuning by three programs; each runs in a process of its own."""
