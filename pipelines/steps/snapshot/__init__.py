"""From changes to a snapshot: embedding, and the compaction of small parts."""
