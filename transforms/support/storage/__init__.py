"""Files in any store, whole or not at all; and the Parquet files that are ours."""
