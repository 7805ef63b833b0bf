from .errors import InputError as InputError
from .find.duplicates import find_duplicates as find_duplicates
from .find.index import Index as Index
from .find.model import Model as Model
from .find.model import load as load
from .find.pair import compare as compare
from .words.captioner import Captioner as Captioner

__version__: str
