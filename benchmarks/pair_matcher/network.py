"""The learned pair matcher by numpy alone: stored tokens of two pictures → a logit that both show the same photo.

`model.PairNetwork` describes it. What looks at one picture alone is done once for a query, and may be done beforehand
for references (`enter`).
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from isc.errors import InputError

Floats = npt.NDArray[np.float32]

FORMAT = "isc-pair-1"
EPSILON = 1e-5  # of layer norms
SETTINGS = ("coarse", "fine", "places", "width", "heads", "blocks", "look_heads", "look_width", "place_width")
CHUNK = 32  # references compared at a time: what is computed between two layers stays in the cache


@dataclass(frozen=True)
class Entered:
    """Pictures as far as they can be understood alone: coarse tokens [M, places, width], and unit keys
    [M, look_heads, T, look_width] of the coarse places, of the fine ones within each together, and of the fine ones."""

    tokens: Floats
    coarse: Floats
    together: Floats
    fine: Floats

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: slice | npt.NDArray[np.int64]) -> Entered:
        return Entered(self.tokens[rows], self.coarse[rows], self.together[rows], self.fine[rows])


@dataclass(frozen=True)
class PairMatcher:
    """The network of a file that `model.save_pair_network` wrote."""

    settings: Mapping[str, int]
    weights: Mapping[str, Floats]

    @property
    def token_width(self) -> int:
        """Values of a token: the coarse map's channels, and four times the fine one's."""
        return self.settings["coarse"] + 4 * self.settings["fine"]

    def score(self, query: npt.NDArray[np.floating], references: npt.NDArray[np.floating]) -> Floats:
        """Logits [M] that the picture of tokens `query` [T, C] shows the same photo as those of `references`
        [M, T, C]; each depends on its own pair alone, up to rounding. InputError where the tokens have another shape.
        """
        return self.compare(self.enter(query[None]), self.enter(references))

    def enter(self, tokens: npt.NDArray[np.floating]) -> Entered:
        """What can be computed of pictures [M, T, C] alone."""
        s = self.settings
        if tokens.ndim != 3 or tokens.shape[1:] != (s["places"], self.token_width):
            raise InputError(
                f"tokens of shape {tokens.shape}; expected [pictures, {s['places']}, {self.token_width}]: make them "
                "with the backbone that the pair matcher was trained on"
            )
        x = tokens.astype(np.float32)
        coarse = _norm(x[..., : s["coarse"]])
        compared = self._linear("fine_key", _norm(x[..., s["coarse"] :].reshape(len(x), 4 * s["places"], s["fine"])))
        together = compared.reshape(len(x), s["places"], 4, compared.shape[2]).mean(2)
        keys = [_unit(_split(z, s["look_heads"])) for z in (self._linear("coarse_key", coarse), together, compared)]
        return Entered(self._linear("coarse_in", coarse) + self.weights["place"], *keys)

    def compare(self, query: Entered, references: Entered) -> Floats:
        """`score` of pictures that have entered, one query [1] and references [M]."""
        parts = [references.take(slice(at, at + CHUNK)) for at in range(0, len(references), CHUNK)]
        return np.concatenate([np.zeros(0, np.float32), *(self._compare(query, part) for part in parts)])

    def _compare(self, query: Entered, references: Entered) -> Floats:
        side = self.weights["side"]
        notes_x, alike_x = self._look(query, references)
        notes_y, alike_y = self._look(references, query)
        x, y = query.tokens + side[0] + notes_x, references.tokens + side[1] + notes_y
        for number in range(self.settings["blocks"]):
            x, y = self._block(f"blocks.{number}", x, y)
        told = (self._normed("last_norm", x), self._normed("last_norm", y), alike_x, alike_y)
        pooled = np.concatenate([part for z in told for part in (z.mean(1), z.max(1))], axis=1)
        return self._linear("out", np.maximum(self._linear("hidden", pooled), 0))[:, 0]

    def _look(self, own: Entered, other: Entered) -> tuple[Floats, Floats]:
        """What the tokens of one picture find in the other: notes [M, places, width], and how alike the likes are
        [M, places, 2 · look_heads]."""
        code, scale = self.weights["code"], np.exp(self.weights["scale"])[..., None, None]
        inside = code.reshape(self.settings["places"], 4, -1).mean(1)
        near = _likes(own.coarse, other.coarse, inside, scale[0])
        fine = _likes(own.together, other.fine, code, scale[1])
        notes = np.concatenate([near, fine], axis=1)
        return self._linear("found", _join(notes)), notes[..., -1].swapaxes(1, 2)

    def _block(self, name: str, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        x, y = (z + self._attention(f"{name}.own", *2 * (self._normed(f"{name}.norm_own", z),)) for z in (x, y))
        across_x, across_y = (self._normed(f"{name}.norm_other", z) for z in (x, y))
        x = x + self._attention(f"{name}.other", across_x, across_y)
        y = y + self._attention(f"{name}.other", across_y, across_x)
        return self._hidden(name, x), self._hidden(name, y)

    def _hidden(self, name: str, x: Floats) -> Floats:
        up = self._linear(f"{name}.up", self._normed(f"{name}.norm_hidden", x))
        return x + self._linear(f"{name}.down", np.maximum(up, 0, out=up))

    def _attention(self, name: str, x: Floats, y: Floats) -> Floats:
        heads = self.settings["heads"]
        ask = _split(self._linear(f"{name}.ask", x), heads)
        key, value = (_split(part, heads) for part in np.split(self._linear(f"{name}.told", y), 2, axis=2))
        ask *= np.float32(ask.shape[3] ** -0.5)
        shares = _softmax(ask @ key.swapaxes(2, 3))
        return self._linear(f"{name}.out", _join(shares @ value))

    def _linear(self, name: str, x: Floats) -> Floats:
        weight = self.weights[f"{name}.weight"]
        flat = (
            x.reshape(-1, weight.shape[1]) @ weight.T + self.weights[f"{name}.bias"]
        )  # one product, not one a picture
        return flat.reshape(*x.shape[:-1], len(weight))

    def _normed(self, name: str, x: Floats) -> Floats:
        return _norm(x) * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def load(path: Path) -> PairMatcher:
    """The matcher of a file; InputError where it is not what `model.save_pair_network` writes."""
    try:
        with np.load(path, allow_pickle=False) as file:
            values = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as weights of a pair matcher ({error}); write it again") from error
    if str(values.pop("format", "")) != FORMAT or any(f"config.{name}" not in values for name in SETTINGS):
        raise InputError(f"{path}: does not say {FORMAT}; expected weights of a pair matcher")
    settings = {name: int(values.pop(f"config.{name}")) for name in SETTINGS}
    weights = {name: value.astype(np.float32) for name, value in values.items()}
    if bad := next((name for name, value in weights.items() if not np.isfinite(value).all()), None):
        raise InputError(f"{path}: {bad} holds values that are no numbers; train it again")
    return PairMatcher(MappingProxyType(settings), MappingProxyType(weights))


def _norm(x: Floats) -> Floats:
    """Mean 0 and variance 1 along the last axis (Ba et al., arXiv:1607.06450, eq. 3)."""
    centred: Floats = x - x.mean(axis=-1, keepdims=True)
    variance = np.einsum("...c,...c->...", centred, centred)[..., None] / np.float32(x.shape[-1])
    centred /= np.sqrt(variance + np.float32(EPSILON))
    return centred


def _unit(x: Floats) -> Floats:
    lengths = np.sqrt(np.einsum("...c,...c->...", x, x))[..., None]
    unit: Floats = x / np.maximum(lengths, np.float32(1e-12))
    return unit


def _softmax(x: Floats) -> Floats:
    shares: Floats = np.exp(x - x.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    return shares


def _likes(ask: Floats, key: Floats, code: Floats, scale: Floats) -> Floats:
    """Where the likes lie, in codes [T, place_width], and how alike they are [M, heads, T, place_width + 1]."""
    likeness = ask @ key.swapaxes(2, 3)
    shares = _softmax(scale * likeness)
    return np.concatenate([shares @ code, np.einsum("...j,...j->...", shares, likeness)[..., None]], axis=3)


def _split(x: Floats, heads: int) -> Floats:
    """[M, T, heads · C] → [M, heads, T, C]."""
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads).swapaxes(1, 2)


def _join(x: Floats) -> Floats:
    """[M, heads, T, C] → [M, T, heads · C]."""
    return x.swapaxes(1, 2).reshape(len(x), x.shape[2], x.shape[1] * x.shape[3])
