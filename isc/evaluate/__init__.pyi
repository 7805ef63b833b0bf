from .metrics import Metrics as Metrics
from .metrics import evaluate as evaluate
