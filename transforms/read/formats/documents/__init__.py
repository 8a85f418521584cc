"""Formats in which a file is an item."""
