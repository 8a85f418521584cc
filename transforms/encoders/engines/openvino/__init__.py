"""OpenVINO: models converted once and kept, in float32, bfloat16 and int8, on CPUs."""
