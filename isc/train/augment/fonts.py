"""The fonts and the colour emoji of this machine, found where systems keep them; Pillow's own font where there is none.

What is found changes the views that a seed gives, so `fonts_used` belongs into a run's record.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache, lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.fonts",
    "~/.local/share/fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "~/Library/Fonts",
    "C:/Windows/Fonts",
)
SUFFIXES = frozenset({".ttf", ".otf", ".ttc"})
EMOJI_FONTS = ("notocoloremoji", "apple color emoji", "seguiemj", "twemoji", "joypixels", "openmoji-color")
EMOJI_STRIKES = (109, 96, 160, 64)  # pixel sizes that bitmap fonts are made for: Noto's, Apple's, and what scales
MOST_FONTS = 400  # looked at; a machine with more of them keeps the first by name of each folder in turn
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# fmt: off
WORDS = {
    "ascii": "the of new photo today sale love best top wow free news 2021 follow share like why how when OMG LOL just "
             "my life mood me you cat weekend #fun @anna 50% 100% !!! ??? BREAKING hot summer vibes bonjour hola ciao",
    "latin": "schön olá être für così mañana město więcej güzel français día über não žena",
    "cyrillic": "сегодня хороший день привет мир любовь новости лучшее фото почему жизнь Київ збірка ДА нет 2021",
    "greek": "καλημέρα σήμερα αγάπη νέα ζωή φωτογραφία κόσμος γιατί ναι",
    "arabic": "مرحبا صباح الخير اليوم صورة جديد حب اخبار عاجل السلام",
    "hebrew": "שלום בוקר טוב היום תמונה חדש אהבה חדשות עולם",
    "devanagari": "नमस्ते दुनिया आज तस्वीर प्यार नया समाचार भारत",
    "bengali": "শুভ সকাল আজ ছবি নতুন খবর",
    "tamil": "வணக்கம் இன்று படம் புதிய அன்பு",
    "thai": "สวัสดี วันนี้ รูปภาพ ใหม่ รัก ข่าว",
    "georgian": "გამარჯობა დღეს ფოტო ახალი",
    "armenian": "բարեւ այսօր նոր լուսանկար",
    "ethiopic": "ሰላም ዛሬ አዲስ ፎቶ",
    "chinese": "今天 美好 的一天 你好 世界 新闻 照片 爱",
    "japanese": "今日は いい 天気 日本 の夏 ありがとう カワイイ",
    "korean": "안녕하세요 오늘 사진 사랑 좋은 하루",
}
# fmt: on
SCRIPTS = {script: tuple(words.split()) for script, words in WORDS.items()}
SCRIPTS["latin"] += SCRIPTS["ascii"]
CASED = frozenset({"ascii", "latin", "cyrillic", "greek"})  # written in capitals at times
SIGNS = "0123456789.:/@-"  # of clocks, addresses and counters, in Latin fonts


@cache
def _files() -> tuple[Path, ...]:
    """Font files below FOLDERS, in the order of their paths."""
    found: list[Path] = []
    for folder in FOLDERS:
        top = Path(folder).expanduser()
        found += sorted(
            Path(root, name)
            for root, _, names in os.walk(top)
            for name in names
            if Path(name).suffix.lower() in SUFFIXES
        )
    return tuple(found)


@cache
def emoji_font() -> Path | None:
    """The file of a font of coloured emoji, or None."""
    for start in EMOJI_FONTS:
        for path in _files():
            if path.name.lower().startswith(start):
                return path
    return None


@cache
def fonts_by_script() -> dict[str, tuple[str, ...]]:
    """For each script with a font that has all letters of its words: those font files. Empty without fonts."""
    plain = [path for path in _files() if "emoji" not in path.name.lower()][:MOST_FONTS]
    found: dict[str, list[str]] = {script: [] for script in SCRIPTS}
    for path in plain:
        for script in _scripts(path):
            found[script].append(str(path))
    return {script: tuple(paths) for script, paths in found.items() if paths}


def _scripts(path: Path) -> list[str]:
    """The scripts whose words the font can write: each letter has a glyph, other than the one for missing letters."""
    try:
        font = ImageFont.FreeTypeFont(str(path), 16, layout_engine=ImageFont.Layout.BASIC)
        missing = {_glyph(font, "\uffff"), _glyph(font, "\U0010fffd"), (b"", (0, 0))}
        return [script for script in SCRIPTS if all(_glyph(font, letter) not in missing for letter in _letters(script))]
    except (OSError, ValueError):  # a broken file, or one without letters
        return []


@cache
def _letters(script: str) -> str:
    """Each character that a font has to have, once."""
    words = "".join(SCRIPTS[script])
    capitals = words.upper() + words.lower() if script in CASED else ""
    return "".join(dict.fromkeys(words + capitals + (SIGNS if script in {"ascii", "latin"} else "")))


def _glyph(font: ImageFont.FreeTypeFont, letter: str) -> tuple[bytes, tuple[int, int]]:
    mask = font.getmask(letter, mode="L")
    return (b"", (0, 0)) if mask.getbbox() is None else (bytes(mask), mask.size)


@lru_cache(maxsize=512)
def font_at(path: str, size: int) -> Font:
    """The font of this file, or Pillow's own where the path is empty; kept open."""
    # not ImageFont.truetype, which looks for another file of this name where this one is broken
    return ImageFont.FreeTypeFont(path, size) if path else ImageFont.load_default(size)


@cache
def emoji_sizes() -> ImageFont.FreeTypeFont | None:
    """The emoji font at a size that it has pictures for, or None where Pillow cannot draw it."""
    path = emoji_font()
    for size in EMOJI_STRIKES if path else ():
        try:
            font = ImageFont.FreeTypeFont(str(path), size)
        except OSError:
            continue
        if emoji_picture(font, "\U0001f600") is not None:
            return font
    return None


def emoji_picture(font: ImageFont.FreeTypeFont, letter: str) -> Image.Image | None:
    """The emoji on a transparent ground (RGBA), cut to its ink, or None where the font has none in colour."""
    image = Image.new("RGBA", (2 * int(font.size), 2 * int(font.size)))
    ImageDraw.Draw(image).text((font.size // 4, font.size // 4), letter, font=font, embedded_color=True)
    box = image.getchannel("A").getbbox()
    if box is None or image.convert("HSV").getchannel("S").getextrema()[1] == 0:
        return None
    return image.crop(box)


def fonts_used() -> str:
    """What text and emoji are drawn with, for a run's record: how many fonts, which emoji, and a hash of the files."""
    paths = sorted({path for paths in fonts_by_script().values() for path in paths})
    emoji = emoji_font() if emoji_sizes() else None
    lines = [f"{Path(path).name} {Path(path).stat().st_size}" for path in [*paths, *([str(emoji)] if emoji else [])]]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
    return f"{len(paths)} fonts, {len(fonts_by_script())} scripts, emoji {emoji.name if emoji else 'drawn'}, {digest}"
