from .card import Card as Card
from .files import build_on_disk as build_on_disk
from .files import load as load
from .files import open_index as open_index
from .index import Approximate as Approximate
from .pairs import approximate_pairs as approximate_pairs
