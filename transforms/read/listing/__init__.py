"""Which files are the corpus: globs to a table of files. Nothing is opened here but by the inventory."""
