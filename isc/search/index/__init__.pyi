from .index import Index as Index
from .index import Stats as Stats
from .index import is_index as is_index
from .index import read_index as read_index
from .manifest import Manifest as Manifest
from .snapshot import Snapshot as Snapshot
from .writer import Added as Added
from .writer import Writer as Writer
