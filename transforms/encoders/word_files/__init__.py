"""Files of word vectors: readers of each format, and the table that a machine keeps of a file."""
