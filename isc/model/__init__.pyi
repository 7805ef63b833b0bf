from .copy_model import CopyModel as CopyModel
from .inference import Network as Network
from .inference import load_network as load_network
from .load import load_model as load_model
