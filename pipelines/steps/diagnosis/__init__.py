"""Checks of a set-up before its first run: each tells what is right, or what to do."""
