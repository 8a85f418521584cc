"""The fused stage: read, chunk, embed, write parts; and what is known of it before and after."""
