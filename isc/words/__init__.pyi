from .caption_files import Captions as Captions
from .caption_files import read_captions as read_captions
from .caption_metrics import caption_figures as caption_figures
from .captioner import Caption as Caption
from .captioner import Captioner as Captioner
from .ranking import ranking_figures as ranking_figures
from .submission import read_submission as read_submission
from .submission import write_submission as write_submission
