"""From a snapshot to what searchers see: what is served, publication, updates in place."""
