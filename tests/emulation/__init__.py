"""CUDA on the CPU for the tests: the emulation header, and what builds .cu files behind it."""
