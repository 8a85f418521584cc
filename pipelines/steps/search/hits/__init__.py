"""What becomes of the rows that Milvus found: which are hits, in which order, and what each of them tells."""
