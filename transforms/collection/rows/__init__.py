"""Rows of a collection: sent, imported, deleted, read back, and held against the checkpoint."""
