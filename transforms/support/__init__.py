"""What all transforms use: storage, metrics, retries, stopping. Independent of corpora and collections."""
