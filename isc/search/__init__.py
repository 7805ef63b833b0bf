"""Search: exact (`exact`, on the kernels) and approximate (`approximate`); of images with several rows (`views`)."""

from isc.search.exact import best_pairs, knn, nearest
from isc.search.kernels import squared_distances
from isc.search.views import ImagePairs, best_image_pairs, nearest_images

__all__ = [
    "ImagePairs",
    "best_image_pairs",
    "best_pairs",
    "knn",
    "nearest",
    "nearest_images",
    "squared_distances",
]
