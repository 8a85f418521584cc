"""What the transforms stand on: storage, metrics, retries, stopping. Knows nothing of corpora or collections."""
