"""Rows of a collection: sent, imported, deleted, read back, and compared with the checkpoint."""
