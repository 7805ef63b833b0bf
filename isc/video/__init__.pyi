from .frames import Frame as Frame
from .frames import Stretch as Stretch
from .frames import frame_at as frame_at
from .frames import frames as frames
from .frames import is_video as is_video
from .scoring import Segment as Segment
from .scoring import read_segments as read_segments
from .scoring import segment_ap as segment_ap
