"""The work of commands, described by plain values, without gin or flags."""
