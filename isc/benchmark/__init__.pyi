from .edit_log import read_edits as read_edits
from .make import benchmark as benchmark
from .make import make_benchmark as make_benchmark
from .sizes import Sizes as Sizes
from .sizes import Wanted as Wanted
from .sizes import sizes_for as sizes_for
