"""The products that score pairs by the million: numpy's, torch's and faiss's."""
