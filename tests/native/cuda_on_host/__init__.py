"""Executes the CUDA kernels of this project on the host, for tests. Nothing of it ships."""
