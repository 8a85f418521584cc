"""What families of encoders share that vecbeam fits on the corpus: their files, and where a checkpoint keeps them."""
