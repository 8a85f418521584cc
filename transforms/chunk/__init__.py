"""Items to chunks."""
