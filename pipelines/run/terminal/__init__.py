"""The process of the command line: streams, signals, variables, and how a command ends."""
