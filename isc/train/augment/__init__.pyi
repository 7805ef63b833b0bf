from .augmenter import Augmenter as Augmenter
from .augmenter import families as families
