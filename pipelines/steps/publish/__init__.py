"""From a snapshot to what searchers see: publication of a new collection, and updates in place."""
