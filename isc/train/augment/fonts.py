"""The fonts and colour emoji of this machine, from the usual system folders; Pillow's own font if there are none.

The fonts change the views that a seed gives, so a run records `fonts_used`.
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
EMOJI_STRIKES = (109, 96, 160, 64)  # pixel sizes to try: that of Noto, of Apple, of scalable fonts
MOST_FONTS = 400  # most fonts examined: the first ones by folder, then by path
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
CASED = frozenset({"ascii", "latin", "cyrillic", "greek"})  # scripts with capitals
SIGNS = "0123456789.:/@-"  # required of Latin fonts, for clocks, addresses and counters


@cache
def _files() -> tuple[Path, ...]:
    """Return the font files below FOLDERS, folder by folder, each sorted by path."""
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
    """Return the file of a colour emoji font, or None."""
    for start in EMOJI_FONTS:
        for path in _files():
            if path.name.lower().startswith(start):
                return path
    return None


@cache
def fonts_by_script() -> dict[str, tuple[str, ...]]:
    """Return, by script, the font files that have all letters of its words; without scripts that have no such font."""
    plain = [path for path in _files() if "emoji" not in path.name.lower()][:MOST_FONTS]
    found: dict[str, list[str]] = {script: [] for script in SCRIPTS}
    for path in plain:
        for script in _scripts(path):
            found[script].append(str(path))
    return {script: tuple(paths) for script, paths in found.items() if paths}


def _scripts(path: Path) -> list[str]:
    """Return the scripts that the font can write: each letter of their words has a glyph of its own."""
    try:
        font = ImageFont.FreeTypeFont(str(path), 16, layout_engine=ImageFont.Layout.BASIC)
        missing = {_glyph(font, "\uffff"), _glyph(font, "\U0010fffd"), (b"", (0, 0))}
        return [script for script in SCRIPTS if all(_glyph(font, letter) not in missing for letter in _letters(script))]
    except (OSError, ValueError):  # a broken file, or one without letters
        return []


@cache
def _letters(script: str) -> str:
    """Return each character that a font for this script needs, once."""
    words = "".join(SCRIPTS[script])
    capitals = words.upper() + words.lower() if script in CASED else ""
    return "".join(dict.fromkeys(words + capitals + (SIGNS if script in {"ascii", "latin"} else "")))


def _glyph(font: ImageFont.FreeTypeFont, letter: str) -> tuple[bytes, tuple[int, int]]:
    mask = font.getmask(letter, mode="L")
    return (b"", (0, 0)) if mask.getbbox() is None else (bytes(mask), mask.size)


@lru_cache(maxsize=512)
def font_at(path: str, size: int) -> Font:
    """Return the font of this file, or Pillow's own font for an empty path; fonts stay open in a cache."""
    # not ImageFont.truetype: it looks for another file of this name if this one is broken
    return ImageFont.FreeTypeFont(path, size) if path else ImageFont.load_default(size)


@cache
def emoji_sizes() -> ImageFont.FreeTypeFont | None:
    """Return the emoji font at a size that it has pictures for, or None if Pillow cannot draw it."""
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
    """Return the emoji on a transparent ground (RGBA), cut to its ink, or None if the font has no coloured one."""
    image = Image.new("RGBA", (2 * int(font.size), 2 * int(font.size)))
    ImageDraw.Draw(image).text((font.size // 4, font.size // 4), letter, font=font, embedded_color=True)
    box = image.getchannel("A").getbbox()
    if box is None or image.convert("HSV").getchannel("S").getextrema()[1] == 0:
        return None
    return image.crop(box)


def fonts_used() -> str:
    """Describe the fonts of text and emoji for a run's record: their number, the emoji font, a hash of the files."""
    paths = sorted({path for paths in fonts_by_script().values() for path in paths})
    emoji = emoji_font() if emoji_sizes() else None
    lines = [f"{Path(path).name} {Path(path).stat().st_size}" for path in [*paths, *([str(emoji)] if emoji else [])]]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
    return f"{len(paths)} fonts, {len(fonts_by_script())} scripts, emoji {emoji.name if emoji else 'drawn'}, {digest}"
