"""Sentences about items of a shop as a recogniser of speech writes them: words dropped, swapped, misspelt, misheard.

Every draw comes from the generator that is given.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from isc.products.transcripts import Spoken

Rng = np.random.Generator

# what is said of the item, and how often
MODES = {"name": 0.5, "kind": 0.12, "brand": 0.08, "description": 0.15, "other": 0.08, "chat": 0.07}
OPENERS = (
    "okay so next up we have the",
    "look at this one it is the",
    "everybody is asking for the",
    "and now back in stock the",
    "link number {number} is the",
    "I use it every day the",
)
CHAT = (
    "welcome everybody thanks for joining the stream tonight",
    "please give us a like and tell me where you are watching from",
    "let me just move the camera a little can you see that well",
    "shipping is free today only so do not wait too long",
)
FILLERS = ("um", "uh", "you know", "like", "so", "well", "I mean")
HEARD = {  # word → what sounds the same, or nearly so
    "pear": "pair",
    "pears": "pairs",
    "leek": "leak",
    "plum": "plumb",
    "beet": "beat",
    "lime": "line",
    "juice": "use",
    "sour": "sower",
    "sweet": "suite",
    "peel": "peal",
    "red": "read",
    "kiwi": "key we",
    "carrots": "carats",
    "milk": "silk",
    "mango": "man go",
    "lady": "laid he",
    "gala": "galla",
    "delicious": "the licious",
    "smooth": "smoothe",
    "cream": "creme",
    "root": "route",
    "flour": "flower",
    "for": "four",
    "its": "it's",
    "to": "two",
}
SOUNDS = (  # letters → letters that sound alike
    ("ph", "f"),
    ("ck", "k"),
    ("ee", "ea"),
    ("ea", "ee"),
    ("oo", "u"),
    ("c(?=[eiy])", "s"),
    ("tion", "shun"),
    ("y$", "ie"),
    ("qu", "kw"),
    ("s$", "z"),
    ("th", "t"),
    ("v", "f"),
    ("d$", "t"),
    ("g", "k"),
    ("b", "p"),
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Item:
    """An item of the shop: its id, name, kind and description."""

    item_id: str
    name: str
    kind: str
    description: str

    @property
    def brand(self) -> str:
        """Return the first word of a name of three words or more, else the kind."""
        words = self.name.split()
        return words[0] if len(words) > 2 else self.kind


def speech(item: Item | None, other: Item, seconds: float, *, mode: str, rng: Rng) -> tuple[Spoken, ...]:
    """Return what is said in a clip of `item`; None is something unknown, of which only small talk is said."""
    said = sentence(other if mode == "other" else item, mode=mode, rng=rng)
    words = misheard(said.split(), rate=float(rng.uniform(0, 0.25)), rng=rng)
    return cues(words, seconds, rng=rng)


def sentence(item: Item | None, *, mode: str, rng: Rng) -> str:
    """Return a sentence that says of the item what `mode` names; half of them without capitals and stops."""
    if item is None or mode == "chat":
        said = str(rng.choice(CHAT))
    else:
        facts = [fact for fact in re.split(r"(?<=[.!?])\s+", item.description) if fact]
        fact = " ".join(str(rng.choice(facts)).split()[:14]) if facts else ""
        opener = str(rng.choice(OPENERS)).format(number=rng.integers(1, 100))
        named = {"kind": item.kind, "brand": item.brand, "description": fact or item.kind}.get(mode, item.name)
        more = f" {fact}" if mode in ("name", "other") and rng.random() < 0.6 else ""
        said = named if mode == "description" else f"{opener} {named}.{more}"
    return said if rng.random() < 0.5 else " ".join(re.sub(r"[^\w'% ]+", " ", said.lower()).split())


def misheard(words: list[str], *, rate: float, rng: Rng) -> list[str]:
    """Return the words with errors at this rate a word, and fillers at a third of it; at least one word is left."""
    found: list[str] = []
    for word in words:
        if rng.random() < rate / 3:
            found.append(str(rng.choice(FILLERS)))
        if rng.random() >= rate:
            found.append(word)
            continue
        kind = rng.choice(["drop", "swap", "spell", "sound"], p=[0.25, 0.15, 0.3, 0.3])
        if kind == "swap":
            found.insert(max(0, len(found) - 1), word)
        elif kind == "spell":
            found.append(misspelt(word, rng=rng))
        elif kind == "sound":
            found.append(sounding(word, rng=rng))
    return found or words[:1]


def misspelt(word: str, *, rng: Rng) -> str:
    """Return the word with one letter left out, doubled, replaced, or changed with the next one."""
    at = int(rng.integers(len(word)))
    kind = rng.integers(4)
    if kind == 0 and len(word) > 1:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[: at + 1] + word[at:]
    if kind == 2:
        return word[:at] + str(rng.choice(list(LETTERS))) + word[at + 1 :]
    return word[:at] + word[at : at + 2][::-1] + word[at + 2 :]


def sounding(word: str, *, rng: Rng) -> str:
    """Return a word or words that sound like it; the word itself if nothing is known to."""
    plain = re.sub(r"\W+$", "", word.lower())
    if plain in HEARD:
        return HEARD[plain]
    options = [re.sub(letters, to, plain, count=1) for letters, to in SOUNDS if re.search(letters, plain)]
    return str(rng.choice(options)) if options else word


def cues(words: list[str], seconds: float, *, rng: Rng) -> tuple[Spoken, ...]:
    """Return the words in cues of four to nine, spoken at an even pace, within `seconds`; times in milliseconds."""
    start = float(rng.uniform(0, 0.1)) * seconds
    pace = min(float(rng.uniform(0.25, 0.45)), (0.98 * seconds - start) / len(words))
    found, at = [], 0
    while at < len(words):
        until = min(len(words), at + int(rng.integers(4, 10)))
        times = round(start + at * pace, 3), round(start + until * pace, 3)
        found.append(Spoken(*times, " ".join(words[at:until])))
        at = until
    return tuple(found)


def srt_text(spoken: tuple[Spoken, ...]) -> str:
    """Return the cues as SubRip."""
    lines = [
        f"{number}\n{_stamp(one.start)} --> {_stamp(one.end)}\n{one.text}\n"
        for number, one in enumerate(spoken, start=1)
    ]
    return "\n".join(lines)


def whisper_values(spoken: tuple[Spoken, ...]) -> dict[str, object]:
    """Return the cues as the JSON that Whisper writes."""
    segments = [
        {"id": number, "start": one.start, "end": one.end, "text": f" {one.text}"} for number, one in enumerate(spoken)
    ]
    return {"text": "".join(str(one["text"]) for one in segments), "segments": segments, "language": "en"}


def _stamp(seconds: float) -> str:
    whole = round(seconds * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02},{whole % 1000:03}"
