"""BERT variants on processors with AMX: vecbeam's own kernels, in C++, compiled when vecbeam is installed."""
