"""The families of our own attacks beyond geometry, captions and plain filters, by their probability's name."""

from __future__ import annotations

from isc.train.augment.artistic import (
    Cartoon,
    Duotone,
    FewColours,
    GlowingEdges,
    Hatching,
    Levels,
    Paint,
    Relief,
    Sketch,
    Threshold,
)
from isc.train.augment.attack import BaseAttack
from isc.train.augment.layouts import Collage, Demotivator, Inset, PictureInPicture, Story, TwoPanels
from isc.train.augment.lights import (
    Cast,
    FilmGrain,
    Fog,
    GradientVeil,
    LightLeak,
    LocalContrast,
    Resaves,
    Specks,
    SplitChannels,
    VideoFrame,
    Vignette,
)
from isc.train.augment.occlusion import Censor, CutOut, Grid, Patches, Scribble, Tiles, Watermark
from isc.train.augment.prints import Halftone, Photocopy, PhotographedScreen, PrintScan
from isc.train.augment.strips import ExposeTwice, FadePhotos, MixPhotos, Slices, Strip
from isc.train.augment.warps import Bulge, Elastic, Lens, Shear, Swirl, Warp, Waves

# an attack listed n times is drawn n times as often
PATTERNS: dict[str, tuple[type[BaseAttack], ...]] = {
    "print": (PrintScan, PrintScan, Halftone, Photocopy),
    "screen": (PhotographedScreen,),
    "strip": (Strip, Strip, Slices),
    "blend": (MixPhotos, MixPhotos, FadePhotos, ExposeTwice),
    "collage": (Collage, Collage, PictureInPicture, PictureInPicture, Inset),
    "layout": (Story, TwoPanels, Demotivator),
    "artistic": (Paint, Sketch, Cartoon, Relief, Relief, Relief, GlowingEdges, GlowingEdges, Hatching),
    "palette": (FewColours, FewColours, FewColours, Levels, Levels, Duotone, Duotone, Threshold),
    "light": (LocalContrast, Vignette, Cast, FilmGrain, LightLeak, SplitChannels, Fog, Specks, GradientVeil),
    "warp": (Swirl, Lens, Waves, Bulge, Shear, Elastic),
    "resave": (Resaves, VideoFrame),
    "occlude": (Patches, Tiles, Censor, Watermark, Grid, Scribble, CutOut),
}
COARSE: tuple[type[BaseAttack], ...] = (Halftone, Photocopy, Paint, Hatching, VideoFrame)  # lose small details

# attacks that move, cover or blend the photo, linearly in its pixels; a trace follows them, or their `mover`
TRACED: tuple[type[BaseAttack], ...] = (
    PrintScan, PhotographedScreen, Strip, Slices, MixPhotos, FadePhotos, Collage, PictureInPicture, Inset,
    Story, TwoPanels, Demotivator, Warp, Patches, Tiles, Censor, Watermark, Grid, Scribble, CutOut,
)  # fmt: skip


def patterns(strength: float) -> dict[str, list[BaseAttack]]:
    """Return the attacks of each family at p = 1; an attack listed twice in a family is one object twice."""
    made: dict[str, list[BaseAttack]] = {}
    for family, kinds in PATTERNS.items():
        ready = {kind: kind(strength=strength, p=1) for kind in dict.fromkeys(kinds)}
        made[family] = [ready[kind] for kind in kinds]
    return made
