from .progress import Report as Report
from .progress import progress as progress
