"""What a person runs: one file a command, and the command line."""
