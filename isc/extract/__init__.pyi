from .embedding import embed as embed
from .embedding import embed_photos as embed_photos
from .run import extract as extract
from .view_plan import ViewPlan as ViewPlan
