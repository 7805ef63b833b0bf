from .decode import Pixels as Pixels
from .decode import read_image as read_image
from .folders import list_images as list_images
from .listing import Listing as Listing
from .resizing import fit_within as fit_within
from .resizing import resize as resize
from .sources import list_photos as list_photos
from .views import parse_views as parse_views
