from .reading import Frame as Frame
from .reading import Stretch as Stretch
from .reading import frame_at as frame_at
from .reading import frames as frames
from .reading import is_video as is_video
from .scoring import Segment as Segment
from .scoring import read_segments as read_segments
from .scoring import segment_ap as segment_ap
