"""Recognition of speech as a plug-in: the sound of a clip → what is said."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from isc.errors import InputError, needing
from isc.products.transcripts import Spoken
from isc.video.sound import RATE, Samples, sound

Recogniser = Callable[[Samples, int], Iterable[tuple[float, float, str]]]

OWN = "pocketsphinx"
PIECE = 15  # seconds of sound that are recognised at once
FRAMES = 100  # of a second, in which pocketsphinx counts


def recogniser(name: str) -> Recogniser:
    """Return the recogniser of this name: `pocketsphinx`, or a function of an installed module, `MODULE:FUNCTION`.

    A recogniser takes samples, int16 [N] of one channel, and their number in a second; it yields (start, end, text) in
    seconds. Raises InputError if there is none of this name.
    """
    if name == OWN:
        return pocketsphinx
    expected = f"expected {OWN}, or MODULE:FUNCTION"
    if not all(name.partition(":")):
        raise InputError(f"--listen {name}: no such recogniser; {expected}")
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"--listen {name}: {error}; {expected}") from error
    if not callable(found):
        raise InputError(f"--listen {name}: is no function; {expected}")
    listens: Recogniser = found
    return listens


def listen(clip: Path, recognise: Recogniser) -> tuple[Spoken, ...]:
    """Return what a recogniser hears in a video; nothing without sound. Raises InputError if it is no video."""
    samples = sound(clip)
    if not len(samples):
        return ()
    return tuple(Spoken(start, end, text) for start, end, text in recognise(samples, RATE) if text.strip())


def pocketsphinx(samples: Samples, rate: int) -> Iterator[tuple[float, float, str]]:
    """Yield what CMU PocketSphinx hears, by the model of US English that its package carries."""
    with needing("--listen pocketsphinx", extra="speech"):
        from pocketsphinx import Decoder
    decoder = Decoder(samprate=rate, loglevel="FATAL")
    for begin in range(0, len(samples), PIECE * rate):
        piece = samples[begin : begin + PIECE * rate]
        decoder.start_utt()
        decoder.process_raw(piece.tobytes(), full_utt=True)
        decoder.end_utt()
        words = [one for one in decoder.seg() or () if not one.word.startswith(("<", "["))]
        if words:
            start = begin / rate
            text = " ".join(one.word.partition("(")[0] for one in words)
            yield start + words[0].start_frame / FRAMES, start + (words[-1].end_frame + 1) / FRAMES, text
