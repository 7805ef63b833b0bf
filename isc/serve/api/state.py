"""State that all requests of a web process share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from fastapi import Request

from isc.serve.api.broker import Broker
from isc.serve.api.rates import Rates
from isc.serve.database import Database
from isc.serve.files import PictureFiles
from isc.serve.reading import Reader
from isc.serve.settings import Settings


@dataclass(frozen=True)
class State:
    """The database, the settings, the files, and the limits of rates."""

    database: Database
    settings: Settings
    rates: Rates
    broker: Broker
    counters: dict[str, int] = field(default_factory=dict)

    @cached_property
    def files(self) -> PictureFiles:
        return PictureFiles(self.settings.data / "pictures")

    @cached_property
    def reader(self) -> Reader:
        """The process that makes previews."""
        caps = self.settings.caps
        return Reader(image_size=64, seconds=caps.decode_seconds, memory=caps.decode_bytes, pixels=caps.pixels)


def state_of(request: Request) -> State:
    state: State = request.app.state.shared
    return state
