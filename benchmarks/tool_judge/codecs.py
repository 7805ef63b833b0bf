"""Edits with loss: video codecs and filters of ffmpeg, repeated saving, painting filters of OpenCV."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from types import MappingProxyType

import cv2
import numpy as np
from PIL import Image

from benchmarks.tool_judge.draws import Draws, Made
from benchmarks.tool_judge.tools import ffmpeg_codec, ffmpeg_filter


def _video_frame(image: Image.Image, draws: Draws) -> Made:
    """Encode the picture as one frame of a video at a very low rate."""
    h264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", f"{draws.whole(36, 48)}")
    vp9 = ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-b:v", "0", "-crf", f"{draws.whole(54, 63)}")
    mpeg2 = ("-c:v", "mpeg2video", "-q:v", f"{draws.whole(16, 31)}")
    options = draws.one_of((h264, vp9, mpeg2))
    side = draws.whole(200, max(image.size))
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.BICUBIC)
    return ffmpeg_codec(small, options), {"options": " ".join(options), "side": side}


def _video_filter(image: Image.Image, draws: Draws) -> Made:
    """Apply one or two of the filters of video editors."""
    curve = draws.one_of(("vintage", "cross_process", "color_negative", "darker", "lighter", "strong_contrast"))
    step = draws.one_of((32, 48, 64))
    filters = (
        f"curves=preset={curve}",
        f"hue=h={draws.whole(-120, 120)}:s={draws.number(0.2, 2.5)}:b={draws.number(-1.5, 1.5)}",
        f"noise=alls={draws.whole(25, 70)}:allf={draws.one_of(('u', 't', 'p'))}:all_seed={draws.whole(0, 9999)}",
        f"lutrgb=r=val*{draws.number(0.5, 1.5)}:g=val*{draws.number(0.5, 1.5)}:b=val*{draws.number(0.5, 1.5)}",
        f"lutyuv=y=floor(val/{step})*{step}",
        f"eq=contrast={draws.number(0.5, 2)}:saturation={draws.number(0, 2.5)}:gamma={draws.number(0.6, 1.8)}",
        f"boxblur={draws.whole(2, 5)}",
        f"unsharp=7:7:{draws.number(2, 5)}",
        f"rgbashift=rh={draws.whole(3, 10)}:bh=-{draws.whole(3, 10)}",
        f"lenscorrection=k1={draws.number(-0.4, 0.2)}:k2={draws.number(-0.1, 0.1)}",
    )
    chosen = [filters[int(i)] for i in draws.rng.permutation(len(filters))[: draws.whole(1, 2)]]
    return ffmpeg_filter(image, ",".join(chosen)), {"filters": ",".join(chosen)}


def _scaled_small(image: Image.Image, draws: Draws) -> Made:
    """Shrink the picture to a thumbnail and enlarge it again."""
    down, up = (draws.one_of(("neighbor", "bilinear", "bicubic", "lanczos", "area")) for _ in range(2))
    side = draws.whole(44, 110)
    scale = side / max(image.size)
    width, height = (max(16, round(length * scale)) for length in image.size)
    filters = f"scale={width}:{height}:flags={down},scale={image.width}:{image.height}:flags={up}"
    return ffmpeg_filter(image, filters), {"filters": filters}


def _resaves(image: Image.Image, draws: Draws) -> Made:
    """Save the picture three to eight times as JPEG, WebP or GIF, each time at another size."""
    saved: list[list[object]] = []
    for _ in range(draws.whole(3, 8)):
        kind = draws.one_of(("JPEG", "JPEG", "WEBP", "GIF"))
        quality, scale = draws.whole(8, 55), draws.number(0.7, 1.25)
        size = [min(640, max(96, round(length * scale))) for length in image.size]
        image, file = image.resize((size[0], size[1]), Image.Resampling.BILINEAR), io.BytesIO()
        if kind == "GIF":
            image.quantize(draws.one_of((32, 64, 128, 256))).save(file, kind)
        else:
            image.save(file, kind, quality=quality)
        image = Image.open(io.BytesIO(file.getvalue())).convert("RGB")
        saved.append([kind, quality, *size])
    return image, {"saved": saved}


def _painting(image: Image.Image, draws: Draws) -> Made:
    """Apply OpenCV's stylization."""
    spread, edge = draws.number(20, 90), draws.number(0.15, 0.6)
    pixels = cv2.stylization(np.ascontiguousarray(image), sigma_s=spread, sigma_r=edge)
    return Image.fromarray(pixels), {"sigma_s": spread, "sigma_r": edge}


def _pencil(image: Image.Image, draws: Draws) -> Made:
    """Apply OpenCV's pencil sketch, grey or in colours."""
    spread, edge, shade = draws.number(20, 80), draws.number(0.06, 0.2), draws.number(0.02, 0.07)
    found = cv2.pencilSketch(np.ascontiguousarray(image), sigma_s=spread, sigma_r=edge, shade_factor=shade)
    colours = draws.chance(0.4)
    pixels = found[1] if colours else found[0]
    params = {"sigma_s": spread, "sigma_r": edge, "shade_factor": shade, "colours": colours}
    return Image.fromarray(pixels).convert("RGB"), params


def _smoothed(image: Image.Image, draws: Draws) -> Made:
    """Flatten the areas and keep the edges, by OpenCV's edgePreservingFilter or by mean shift."""
    pixels = np.ascontiguousarray(image)
    if draws.chance(0.5):
        radius, levels = draws.whole(8, 20), draws.whole(20, 50)
        return Image.fromarray(cv2.pyrMeanShiftFiltering(pixels, radius, levels)), {"radius": radius, "levels": levels}
    spread, edge = draws.number(30, 150), draws.number(0.3, 0.8)
    return Image.fromarray(cv2.edgePreservingFilter(pixels, sigma_s=spread, sigma_r=edge)), {
        "sigma_s": spread,
        "sigma_r": edge,
    }


def _detail(image: Image.Image, draws: Draws) -> Made:
    """Apply OpenCV's detailEnhance once or twice, as phones do."""
    spread, edge, times = draws.number(5, 40), draws.number(0.2, 0.6), draws.whole(1, 2)
    pixels = np.ascontiguousarray(image)
    for _ in range(times):
        pixels = cv2.detailEnhance(pixels, sigma_s=spread, sigma_r=edge)
    return Image.fromarray(pixels), {"sigma_s": spread, "sigma_r": edge, "times": times}


CODECS: Mapping[str, Callable[[Image.Image, Draws], Made]] = MappingProxyType(
    {
        "video_frame": _video_frame,
        "scaled_small": _scaled_small,
        "resaves": _resaves,
    }
)
PAINTING: Mapping[str, Callable[[Image.Image, Draws], Made]] = MappingProxyType(
    {
        "video_filter": _video_filter,
        "painting": _painting,
        "pencil": _pencil,
        "smoothed": _smoothed,
        "detail": _detail,
    }
)
