"""The abstract classes of providers, and the errors by which they say what went wrong."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from isc.errors import InputError
from isc.serve.kinds import Kind
from isc.serve.picture import Picture
from isc.serve.results import Result


@dataclass(frozen=True)
class Limits:
    """Limits of a provider.

    Pictures of one call, calls at a time in one worker, seconds of a call, attempts of a request before it is a dead
    letter, and failures in a row that open its circuit.
    """

    batch: int = 8
    concurrency: int = 1
    seconds: float = 60.0
    attempts: int = 6
    failures: int = 5

    def __post_init__(self) -> None:
        if min(self.batch, self.concurrency, self.attempts, self.failures) < 1 or self.seconds <= 0:
            raise InputError(f"{self}; expected numbers of at least 1")


class Unavailable(Exception):
    """The provider is down, slow or out of order: the request is tried again later, and its circuit may open."""


class Busy(Unavailable):
    """The provider asks to be left alone for some seconds (429, Retry-After); this costs no attempt."""

    def __init__(self, reason: str, *, retry_after: float) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Refused(Exception):
    """The provider will never answer about this picture: the request is a dead letter at once."""


Answer = Sequence[Result] | Exception  # the results about one picture, or why there are none


class Provider(ABC):
    """A provider that answers at once.

    `version` changes whenever the same picture may get another answer: results keep the version that made them.
    Providers of one `group` share a worker process, and the pictures that it has decoded; they are asked one after the
    other, so that a slow one keeps the others waiting. A provider that names no group is alone.
    """

    name: ClassVar[str] = ""
    kinds: ClassVar[frozenset[Kind]] = frozenset()
    limits: Limits = Limits()
    group: str = ""
    version: str = "1"

    def comparable_with(self, version: str) -> bool:
        """Return whether this version can compare pictures with what the other version knows of them.

        If it cannot, all pictures that only the other version has described are asked about again.
        """
        del version
        return True

    def forget(self) -> int:
        """Drop what this machine keeps of pictures that were removed, and return their number.

        This is called every few seconds.
        """
        return 0

    @abstractmethod
    def describe(self, pictures: Sequence[Picture]) -> Sequence[Answer]:
        """Return the answer for each picture, in order.

        Raises Unavailable or Busy if no picture could be described; an error of one picture is returned in its place.
        """


class LaterProvider(ABC):
    """A provider whose results come later: it is asked with `submit`, and either polled or calls back."""

    name: ClassVar[str] = ""
    kinds: ClassVar[frozenset[Kind]] = frozenset()
    limits: Limits = Limits()
    group: str = ""
    version: str = "1"
    poll_every: float = 5.0
    give_up: float = 86_400.0  # seconds after which a submitted request counts as failed

    def comparable_with(self, version: str) -> bool:
        """Return whether this version can compare pictures with what the other version knows of them."""
        del version
        return True

    def job_of(self, picture: Picture) -> str | None:
        """Return the id under which the picture will be sent, if that is known before; it may call back at once."""
        del picture
        return None

    @abstractmethod
    def submit(self, pictures: Sequence[Picture]) -> Sequence[str | Exception]:
        """Return the provider's own id of each picture's job; unique for this provider."""

    @abstractmethod
    def poll(self, jobs: Sequence[str]) -> Sequence[Answer | None]:
        """Return the answer for each job, None if there is none yet."""


AnyProvider = Provider | LaterProvider
