"""Kernels that score all pairs of two blocks: numpy, torch and faiss."""
