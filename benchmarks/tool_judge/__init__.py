"""A second outside judge: edits by common tools, none of which any training or other judge here uses.

It has ImageMagick's filters and distortions, ffmpeg's codecs and filters, repeated saving, OpenCV's painting filters,
and layouts drawn for this judge with Pillow and NumPy: stories, memes, collages, strips, blends, screens, scans. It
shares no code with the edits of isc benchmark, of AugLy, or of the training.

    apt-get install imagemagick ffmpeg

`edit_chain` makes a copy of a photo; `KINDS` lists the possible edits.
"""

from benchmarks.tool_judge.chain import EDITS, KINDS, Edit, apply, edit_chain
from benchmarks.tool_judge.tools import require_tools, versions

__all__ = ["EDITS", "KINDS", "Edit", "apply", "edit_chain", "require_tools", "versions"]
