"""Models of BERT's kind on processors with AMX: our own kernels, in C++, compiled when vecbeam is installed."""
