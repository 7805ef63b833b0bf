from .exact import best_pairs as best_pairs
from .exact import knn as knn
from .exact import nearest as nearest
from .kernels.numpy_kernel import squared_distances as squared_distances
from .multi_view import ImagePairs as ImagePairs
from .multi_view import best_image_pairs as best_image_pairs
from .multi_view import nearest_images as nearest_images
