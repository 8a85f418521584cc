"""torch: the library's own modules, on CPUs and GPUs."""
