from .run import match as match
