from .chain import EDITS as EDITS
from .chain import Edit as Edit
from .chain import apply_edits as apply_edits
from .chain import edit_chain as edit_chain
from .chain import region as region
