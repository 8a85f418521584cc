"""Models from a user's own data: pairs of texts, and histories of items."""
