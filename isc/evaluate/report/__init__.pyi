from .comparison import Comparison as Comparison
from .comparison import OtherRun as OtherRun
from .comparison import compare as compare
from .comparison import read_run as read_run
from .page import write_report as write_report
