"""The corpus as it is: its source, what changed in it, samples of it."""
