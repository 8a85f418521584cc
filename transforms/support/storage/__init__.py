"""Files in any store, whole or not at all; and vecbeam's Parquet files."""
