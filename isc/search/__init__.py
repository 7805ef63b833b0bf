"""Search: exact (`exact`, on the kernels) and approximate (`approximate`)."""

from isc.search.exact import best_pairs, knn, nearest
from isc.search.kernels import squared_distances

__all__ = ["best_pairs", "knn", "nearest", "squared_distances"]
