"""Chains of normalisation steps for descriptors, written as text.

`whiten:dim=128,ridge=0.01+subtract` has two steps, applied from left to right, the first with options; an option that
is not given has its published value. The text needs no quotes in a shell. This module checks the steps,
`isc.search.normalize` applies them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, get_args

from isc.data.option_texts import split_options, split_steps
from isc.errors import InputError

MODEL = "model"  # normalize=model: the chain that is stored with the model


def _whole(default: int | None, least: int, most: int) -> Any:
    return field(default=default, metadata={"kind": int, "least": least, "most": most})


def _number(default: float, least: float, most: float) -> Any:
    return field(default=default, metadata={"kind": float, "least": least, "most": most})


def _flag(default: bool) -> Any:
    return field(default=default, metadata={"kind": bool})


@dataclass(frozen=True)
class Step:
    """One step and its options.

    `UNIT` steps need vectors of unit length. All steps but `FINAL` ones treat queries and references alike and return
    unit length; no step may follow a FINAL one. `MORE` is the number of dimensions that a step adds. Raises InputError
    for an option of the wrong kind or out of its range.
    """

    UNIT: ClassVar[bool] = True
    FINAL: ClassVar[bool] = False
    MORE: ClassVar[int] = 0

    def __post_init__(self) -> None:
        for option in fields(self):
            value, kind = getattr(self, option.name), option.metadata["kind"]
            if value is None and option.default is None:
                continue
            if kind is float and type(value) is int:
                value = float(value)
                object.__setattr__(self, option.name, value)
            if type(value) is not kind or (kind is not bool and not _within(value, option.metadata)):
                raise InputError(f"{self.name}:{option.name}={_written(value)}: expected {_expected(option.metadata)}")

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    def __str__(self) -> str:
        """Return `name:option=value,…` with every option that has a value, so that later defaults change nothing."""
        given = [f"{name}={_written(value)}" for name, value in vars(self).items() if value is not None]
        return f"{self.name}:{','.join(given)}" if given else self.name


@dataclass(frozen=True)
class Pca(Step):
    """PCA to the `dim` directions of largest variance; None: all that the descriptors have, at most 256."""

    UNIT: ClassVar[bool] = False
    dim: int | None = _whole(None, 2, 65536)


@dataclass(frozen=True)
class Whiten(Step):
    """PCA whitening: all directions get the same variance; `ridge`, a share of the largest, damps the weak ones."""

    UNIT: ClassVar[bool] = False
    dim: int | None = _whole(None, 2, 65536)
    ridge: float = _number(1e-3, 0.0, 100.0)


@dataclass(frozen=True)
class Score(Step):
    """SSCD's score normalisation, exact, with one more dimension.

    It subtracts `weight` × the mean cosine to the `neighbours` nearest training vectors from the scores of a query.
    """

    FINAL: ClassVar[bool] = True
    MORE: ClassVar[int] = 1
    weight: float = _number(1.0, 0.0, 10.0)
    neighbours: int = _whole(3, 1, 100_000)


@dataclass(frozen=True)
class Stretch(Step):
    """BoT's stretching: queries × `factor` × their mean cosine to the `neighbours` nearest training vectors."""

    FINAL: ClassVar[bool] = True
    factor: float = _number(2.5, 1e-3, 100.0)
    neighbours: int = _whole(5, 1, 100_000)


@dataclass(frozen=True)
class SSquare(Step):
    """S-square's shift of queries away from their `neighbours` nearest training vectors.

    The size of the shift is `push` × the square root of the mean cosine to the `nearest` ones.
    """

    FINAL: ClassVar[bool] = True
    push: float = _number(1.8, 0.0, 100.0)
    nearest: int = _whole(3, 1, 100_000)
    neighbours: int = _whole(100, 1, 100_000)


@dataclass(frozen=True)
class Subtract(Step):
    """lyakaap's subtraction of negative embeddings: `weight` × the mean of the `neighbours` nearest training vectors.

    With `smooth`, each training vector is first averaged with its neighbours.
    """

    weight: float = _number(0.35, 0.0, 10.0)
    neighbours: int = _whole(10, 1, 100_000)
    smooth: bool = _flag(True)


AnyStep = Pca | Whiten | Score | Stretch | SSquare | Subtract  # all kinds, for a match that leaves none out
STEPS: dict[str, type[AnyStep]] = {kind.__name__.lower(): kind for kind in get_args(AnyStep)}


@dataclass(frozen=True)
class Chain:
    """Steps, applied from left to right; the text of an empty chain is `none`. Raises InputError for a wrong order."""

    steps: tuple[AnyStep, ...] = ()

    def __post_init__(self) -> None:
        for step, following in zip(self.steps, self.steps[1:], strict=False):
            if step.FINAL:
                raise InputError(f"{following.name} follows {step.name}; expected {step.name} to come last")

    def __str__(self) -> str:
        return "+".join(map(str, self.steps)) or "none"

    @property
    def needs_unit(self) -> bool:
        """Return whether the chain needs descriptors of unit length."""
        return bool(self.steps) and self.steps[0].UNIT


def is_stored(text: str) -> bool:
    """Return whether `normalize=text` names a stored chain, in a file or with the model, instead of steps."""
    return text == MODEL or text.lower().endswith(".json")


def parse(text: str) -> Chain:
    """Parse `none`, or steps joined by `+`. Raises InputError for a part that is unknown or out of range."""
    expected = f"none, {MODEL}, a FILE.json, or steps joined by +: {', '.join(STEPS)}"
    try:
        steps = [] if text == "none" else split_steps(text, STEPS, expected=expected)
        return Chain(tuple(_step(name, options) for name, options in steps))
    except InputError as error:
        raise InputError(f"normalize={text}: {error}") from error


def _step(name: str, text: str | None) -> AnyStep:
    kinds = {option.name: option.metadata for option in fields(STEPS[name])}
    try:
        given = {} if text is None else split_options(text, kinds)
        values = {option: _value(option, value, kinds[option]) for option, value in given.items()}
    except InputError as error:
        raise InputError(f"{name}:{error}") from error
    return STEPS[name](**values)


def _value(name: str, text: str, option: Any) -> Any:
    kind = option["kind"]
    if kind is bool and text in ("true", "false"):
        return text == "true"
    if kind is int and re.fullmatch(r"-?\d{1,9}", text, re.ASCII):
        return int(text)
    if kind is float and re.fullmatch(r"-?[\d.]+(e-?\d+)?", text, re.ASCII):
        try:
            return float(text)
        except ValueError:
            pass
    raise InputError(f"{name}={text}: expected {_expected(option)}")


def _within(value: float, option: Any) -> bool:
    return math.isfinite(value) and option["least"] <= value <= option["most"]


def _expected(option: Any) -> str:
    if option["kind"] is bool:
        return "true or false"
    what = "a whole number" if option["kind"] is int else "a number"
    return f"{what} in {option['least']:g}…{option['most']:g}"


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value).removesuffix(".0")
