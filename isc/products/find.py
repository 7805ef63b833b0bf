"""The item that a clip shows: frames and words → a probability for each item of the shop, and for none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isc.data.model_files import beside_model
from isc.errors import InputError
from isc.model.load_inference import load_inference_model
from isc.photos.decode import Pixels, read_image
from isc.photos.folders import has_image_suffix, image_files
from isc.products.answers import Answer, Box, Match
from isc.products.catalogue import Catalogue, Item
from isc.products.evidence import NAMES, ItemWords, pixel_evidence
from isc.products.fusion import FILE, ProductFusion, load_fusion
from isc.products.regions import REGIONS, best_of_pictures, box_of, describe_regions, describe_whole
from isc.products.transcripts import Spoken
from isc.video.reading import Frame, frame_at, frames, is_video, rate_and_size

EVERY = 0.5  # seconds between two frames of a clip that are looked at
AT_ONCE = 8  # frames that are described at once
STRIP = 8  # frames of a clip that a page shows
COMMAND = "isc train experiment=products_small images=PHOTOS pairs=LABELS.csv catalogue=SHOP output=RUN_DIR"


@dataclass(frozen=True)
class Choice:
    """An item with its probability, 0…1, and the evidence for it by name (`isc.products.evidence`)."""

    item: Item
    probability: float
    evidence: Mapping[str, float]


@dataclass(frozen=True)
class Place:
    """Where a clip shows an item: seconds from its begin, number of the frame, region as shares, shop picture."""

    seconds: float
    frame: int
    region: tuple[float, float, float, float]
    picture: Path


@dataclass(frozen=True)
class Finding:
    """The finding of a clip: all items, the most probable first, the probability of none of them, and what is said.

    `place` is where the first item is seen best; `strip` are seconds of frames that show the clip as a whole. `answer`
    is that of the challenge: the first item, or none if that is more probable.
    """

    clip: Path
    choices: tuple[Choice, ...]
    none: float
    said: str
    place: Place
    strip: tuple[float, ...]
    answer: Answer

    @property
    def name(self) -> str:
        """The name of the clip in a submission: its file without suffix."""
        return clip_name(self.clip)

    @property
    def item(self) -> Item | None:
        """The item of the answer; None for none of the shop."""
        return self.choices[0].item if self.choices[0].probability > self.none else None


def clip_name(clip: Path) -> str:
    """Return the name of a clip in submissions and transcripts: that of its file without suffix, or of its folder."""
    return clip.name if clip.is_dir() else clip.stem


@dataclass(frozen=True)
class Look:
    """The evidence of a clip, of all that was seen and heard in it.

    `evidence` [I, 13] is in the order of NAMES; `cosines` [F, R, P] are those of the regions of the frames with all
    pictures of the shop; `times` are the (start, end) of the frames, `sizes` their (width, height), both [F].
    """

    evidence: npt.NDArray[np.float64]
    cosines: npt.NDArray[np.float32]
    times: tuple[tuple[float, float], ...]
    sizes: tuple[tuple[int, int], ...]
    said: str


class ProductFinder:
    """Finds items of a shop in clips, by a model that `isc train task=products` has trained.

    `fusion` is the one beside the model, if no other is given. Raises InputError if there is no such model, or no
    fusion beside it, for a shop picture that cannot be read, and if the fusion weighs what texts mean and the package
    that compares them is not installed.
    """

    def __init__(
        self, model: str, catalogue: Catalogue, *, fusion: ProductFusion | None = None, device: str = "auto"
    ) -> None:
        self.catalogue = catalogue
        self._network = load_inference_model(model, device=device)
        path = beside_model(model, FILE)
        if fusion is None and not path.is_file():
            raise InputError(f"--model {model}: {path} is not there; expected the run folder of {COMMAND}")
        self._fusion = fusion or load_fusion(path)
        self._owners = np.array([place for place, _ in catalogue.pictures])
        self._files = [file for _, file in catalogue.pictures]
        pictures = [read_image(file) for file in self._files]
        self._sizes = [(one.shape[1], one.shape[0]) for one in pictures]
        self._shop = describe_whole(self._network, pictures)
        self._words = ItemWords(catalogue.items, sentences=self._fusion.sentences)

    def find(self, clip: Path, spoken: Sequence[Spoken] = ()) -> Finding:
        """Find the item of a clip: a video, a photo, or a folder whose photos are views of one thing.

        `spoken` is what is said. Raises InputError for a clip without a frame that can be read.
        """
        look = self.look(clip, spoken)
        choices, none = self.weigh(look)
        place, match = self._place(clip, look, self.catalogue.places[choices[0].item.item_id])
        answer = Answer()
        if choices[0].probability > none:
            answer = Answer(choices[0].item.item_id, place.frame, (match,))
        shown = sorted({int(at) for at in np.linspace(0, len(look.times) - 1, STRIP).round()})
        return Finding(clip, choices, none, look.said, place, tuple(look.times[at][0] for at in shown), answer)

    def look(self, clip: Path, spoken: Sequence[Spoken] = ()) -> Look:
        """Return the evidence of a clip for each item, without weighing it. Raises InputError as `find` does."""
        return self._look(clip_frames(clip), " ".join(one.text for one in spoken).strip())

    def look_at(self, photo: Pixels) -> Look:
        """Return the evidence of a decoded photo, as `look` does of a clip that nothing is said in."""
        return self._look([Frame(0.0, 1.0, photo)], "")

    def weigh(self, look: Look) -> tuple[tuple[Choice, ...], float]:
        """Return the items, the most probable first, and the probability of none of them."""
        probabilities = self._fusion.probabilities(look.evidence, said=bool(look.said))
        order = np.argsort(-probabilities[:-1], kind="stable")
        choices = tuple(
            Choice(self.catalogue.items[at], float(probabilities[at]), _named(look.evidence[at])) for at in order
        )
        return choices, float(probabilities[-1])

    def best_view(self, look: Look, item: Item) -> tuple[tuple[float, float, float, float], Path]:
        """Return the region that shows an item best, as shares, and the picture of the shop that it is most like."""
        _, region, picture = self._seen_best(look, self.catalogue.places[item.item_id])
        return REGIONS[region], self._files[picture]

    def _look(self, found: Iterable[Frame], said: str) -> Look:
        times, rows, sizes = [], [], []
        for batch in _batches(found):
            rows.append(describe_regions(self._network, [one.pixels for one in batch]) @ self._shop.T)
            times += [(one.start, one.end) for one in batch]
            sizes += [(one.pixels.shape[1], one.pixels.shape[0]) for one in batch]
        cosines: npt.NDArray[np.float32] = np.concatenate(rows)
        kinds = [item.kind for item in self.catalogue.items]
        pixels = pixel_evidence(best_of_pictures(cosines, self._owners), [end - start for start, end in times], kinds)
        return Look(np.column_stack([pixels, self._words.evidence(said)]), cosines, tuple(times), tuple(sizes), said)

    def _place(self, clip: Path, look: Look, item: int) -> tuple[Place, Match]:
        """Return where an item is seen best, and the same as a match of the challenge."""
        frame, region, picture = self._seen_best(look, item)
        seconds = look.times[frame][0]
        number, (width, height) = _number_and_size(clip, frame, seconds, look.sizes[frame])
        seen: Box = box_of(REGIONS[region], width, height)
        match = Match(self.catalogue.name_of(self._files[picture]), (0, 0, *self._sizes[picture]), seen)
        return Place(seconds, number, REGIONS[region], self._files[picture]), match

    def _seen_best(self, look: Look, item: int) -> tuple[int, int, int]:
        """Return the numbers of the frame, the region and the shop's picture with the largest cosine for an item."""
        own = np.flatnonzero(self._owners == item)
        cosines = look.cosines[:, :, own]
        frame, region, which = (int(at) for at in np.unravel_index(int(cosines.argmax()), cosines.shape))
        return frame, region, int(own[which])


def clip_frames(clip: Path) -> Iterator[Frame]:
    """Yield the frames of a clip; each photo of a folder, or a photo alone, stands for one second.

    Raises InputError if there is none that can be read.
    """
    if is_video(clip):
        yield from frames(clip, every=EVERY)
        return
    for at, path in enumerate(_photos(clip)):
        yield Frame(float(at), float(at + 1), read_image(path))


def clip_picture(clip: Path, seconds: float) -> Pixels:
    """Return the frame that a clip shows at this time. Raises InputError if it cannot be read."""
    if is_video(clip):
        return frame_at(clip, seconds)
    photos = _photos(clip)
    return read_image(photos[min(int(seconds), len(photos) - 1)])


def _photos(clip: Path) -> list[Path]:
    if clip.is_dir():
        found = sorted(clip / name for name in image_files(clip))
        if not found:
            raise InputError(f"{clip}: holds no photos; expected a clip: a video, a photo, or a folder of photos")
        return found
    if not clip.is_file():
        raise InputError(f"{clip}: is not there; expected a clip: a video, a photo, or a folder of photos")
    if not has_image_suffix(clip.name):
        raise InputError(f"{clip}: neither a video nor a photo by its suffix; expected a clip")
    return [clip]


def _batches(found: Iterable[Frame]) -> Iterator[list[Frame]]:
    batch: list[Frame] = []
    for one in found:
        batch.append(one)
        if len(batch) == AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _named(row: npt.NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(NAMES, row.tolist(), strict=True))


def _number_and_size(clip: Path, place: int, seconds: float, size: tuple[int, int]) -> tuple[int, tuple[int, int]]:
    """Return the number of a frame in its video, or of its photo, and its width and height as it is seen."""
    if not is_video(clip):
        return place, size
    rate, width, height = rate_and_size(clip)
    turned = (width > height) != (size[0] > size[1])  # a phone held upright
    return round(seconds * rate), ((height, width) if turned else (width, height))
