"""One file per family of formats: each reads a file, or a part of one, into a BatchBuilder."""
