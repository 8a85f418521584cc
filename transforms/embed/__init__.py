"""The fused stage: read, chunk, embed, write parts; with its estimate before and its records after."""
