"""What the vectors of a snapshot tell: read from its parts, in flat memory; neither an encoder nor Milvus."""
