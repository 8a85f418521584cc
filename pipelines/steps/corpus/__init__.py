"""From the corpus to a snapshot: its source, what changed, embedding, compaction."""
