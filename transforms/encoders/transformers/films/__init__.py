"""Models of films of the transformers library."""
