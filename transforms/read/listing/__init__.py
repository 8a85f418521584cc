"""Which files are the corpus: globs to a table of files. Only the inventory opens files."""
