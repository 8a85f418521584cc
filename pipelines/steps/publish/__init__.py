"""From a snapshot to what searchers see: publication beside what is served, and updates in place."""
