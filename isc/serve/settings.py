"""The settings of the service: a TOML file, checked when it is read. Secrets come from the environment alone."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from isc.errors import InputError
from isc.serve.kinds import Kind, Verification

DATABASE = "ISC_SERVE_DATABASE"  # the environment variable that names the database, with its password
WEBHOOK_SECRET = "ISC_SERVE_WEBHOOK_SECRET"  # the environment variable of the key that signs deliveries
LOCAL = frozenset(("127.0.0.1", "::1", "localhost"))


@dataclass(frozen=True)
class Caps:
    """The limits of what is taken from outside.

    `bytes` of an upload's file, `pixels` of its picture, `batch` files of one upload, `decode_seconds` and
    `decode_bytes` (of memory) for the process that decodes, `uploads` and `calls` a minute of one token or
    address, and `guesses` of tokens.
    """

    bytes: int = 20_000_000
    pixels: int = 100_000_000
    batch: int = 100
    decode_seconds: float = 20.0
    decode_bytes: int = 4_000_000_000
    uploads: int = 6_000
    calls: int = 12_000
    guesses: int = 60

    def __post_init__(self) -> None:
        for one in fields(self):
            if getattr(self, one.name) <= 0:
                raise InputError(f"caps.{one.name}={getattr(self, one.name)}; expected more than 0")


@dataclass(frozen=True)
class Review:
    """The rules of review for one kind of metadata.

    `verified_by` are the votes that count. Suggestions with a score below `show` are hidden, below `withhold` withheld;
    a share `audit` of the withheld is shown all the same, at random, so that precision can be measured honestly. If of
    the last `window` decided suggestions of a provider significantly fewer than `acceptance` were accepted (upper end
    of Wilson's 95 % interval), further ones are withheld. A picture that more than `flood` others match within an hour
    is quarantined.
    """

    verified_by: Verification = Verification.one
    show: float = 0.1
    withhold: float = 0.3
    audit: float = 0.05
    acceptance: float = 0.2
    window: int = 100
    flood: int = 200

    def __post_init__(self) -> None:
        for name in ("show", "withhold", "audit", "acceptance"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"review: {name}={getattr(self, name)}; expected 0…1")
        if self.show > self.withhold:
            raise InputError(f"review: show={self.show} is above withhold={self.withhold}; expected at most that")
        if self.window < 10 or self.flood < 1:
            raise InputError(f"review: window={self.window}, flood={self.flood}; expected at least 10 and 1")


@dataclass(frozen=True)
class ProviderSettings:
    """A provider by its class (`package.module:Name` or a built-in name) and its options.

    `show` and `withhold` are its own thresholds, `feedback` is the URL that its verdicts are sent to.
    """

    name: str
    use: str
    options: Mapping[str, Any] = field(default_factory=dict)
    show: float | None = None
    withhold: float | None = None
    feedback: str | None = None

    def __post_init__(self) -> None:
        if not self.name.replace("_", "").replace("-", "").isalnum() or len(self.name) > 64:
            raise InputError(f"provider {self.name!r}; expected a name of letters, digits, - and _, at most 64")


BUILT_IN = {name: ProviderSettings(name, name) for name in ("copy", "pdq", "quality")}


@dataclass(frozen=True)
class Settings:
    """All settings. `data` is the folder of pictures, index and features; `database` a URL of SQLAlchemy."""

    data: Path
    database: str
    host: str = "127.0.0.1"
    port: int = 8008
    model: str = "isc_small"
    calibration: Path | None = None
    cache: Path | None = None
    workers: int = 1
    caps: Caps = field(default_factory=Caps)
    review: Mapping[Kind, Review] = field(default_factory=dict)
    providers: Mapping[str, ProviderSettings] = field(default_factory=lambda: dict(BUILT_IN))
    webhooks: Mapping[str, str] = field(default_factory=dict)
    fetch_hosts: frozenset[str] = frozenset()
    folders: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise InputError(f"port={self.port}; expected 0…65535")
        if not 0 <= self.workers <= 64:
            raise InputError(f"workers={self.workers}; expected 0…64")

    @property
    def cache_folder(self) -> Path:
        """The folder of this machine's index and features, which can be made again; by default the data folder."""
        return self.cache or self.data

    @property
    def local(self) -> bool:
        """True if the service listens on this machine alone."""
        return self.host in LOCAL

    def rules(self, kind: Kind) -> Review:
        """Return the rules of review of a kind."""
        return self.review.get(kind, Review())

    def thresholds(self, provider: str, kind: Kind) -> tuple[float, float]:
        """Return (show, withhold) of a provider, its own if it has them."""
        own, rules = self.providers.get(provider), self.rules(kind)
        show = rules.show if own is None or own.show is None else own.show
        withhold = rules.withhold if own is None or own.withhold is None else own.withhold
        return show, max(show, withhold)


def read_settings(path: Path | None, *, data: Path, database: str | None = None, **given: Any) -> Settings:
    """Read the settings of a TOML file; what is given here goes before it.

    The database is `database`, else that of the environment, else an SQLite file in the data folder. Raises InputError
    for a key that is not known, a value of another type, or a password in the file.
    """
    content = _toml(path) if path else {}
    for key in ("webhooks", "providers"):
        _refuse_logins(f"{path}: {key}", content.get(key))
    written = content.pop("database", None)
    if written is not None:
        refuse_password(f"{path}: database", str(written))
    url = database or os.environ.get(DATABASE) or written
    here = data.absolute()
    try:
        return Settings(
            data=here,
            database=url or f"sqlite:///{here / 'serve.sqlite'}",
            caps=Caps(**content.pop("caps", {})),
            review={_kind(name): _review(rules) for name, rules in content.pop("review", {}).items()},
            providers=_providers(content.pop("providers", {})),
            webhooks=dict(content.pop("webhooks", {})),
            fetch_hosts=frozenset(content.pop("fetch_hosts", ())),
            folders=tuple(Path(one).absolute() for one in content.pop("folders", ())),
            cache=Path(own).absolute() if (own := content.pop("cache", None)) else None,
            calibration=Path(own) if (own := content.pop("calibration", None)) else None,
            **{**content, **{name: value for name, value in given.items() if value is not None}},
        )
    except TypeError as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}; see docs/serve.md for the keys") from error


def refuse_password(what: str, url: str) -> None:
    """Raise InputError if the URL of a database holds a password: files and command lines are seen by others."""
    try:
        found = urlsplit(url).password
    except ValueError:  # of no form; the database says so
        return
    if found:
        raise InputError(f"{what}: holds a password; expected a URL without one, or all of it in {DATABASE}")


def _refuse_logins(where: str, value: object) -> None:
    """Raise InputError if a URL anywhere in a value holds a name or password."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            _refuse_logins(f"{where}.{name}", one)
    elif isinstance(value, list):
        for one in value:
            _refuse_logins(where, one)
    elif isinstance(value, str) and "://" in value:
        try:
            parts = urlsplit(value)
            held = parts.username or parts.password
        except ValueError:  # of no form; whoever calls it says so
            return
        if held:
            raise InputError(f"{where}: the URL holds a name or password; expected key_env, or {WEBHOOK_SECRET}")


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected a TOML file") from error


def _kind(name: str) -> Kind:
    if name not in set(Kind):
        raise InputError(f"review.{name}; expected one of {', '.join(Kind)}")
    return Kind(name)


def _review(rules: Mapping[str, Any]) -> Review:
    by = rules.get("verified_by", "one")
    if by not in set(Verification):
        raise InputError(f"verified_by={by!r}; expected one of {', '.join(Verification)}")
    return Review(**{**rules, "verified_by": Verification(by)})


def _providers(tables: Mapping[str, Any]) -> dict[str, ProviderSettings]:
    found = dict(BUILT_IN)
    for name, table in tables.items():
        entries = dict(table)
        if not entries.pop("on", True):
            found.pop(name, None)
            continue
        own = {key: entries.pop(key) for key in ("use", "show", "withhold", "feedback") if key in entries}
        found[name] = ProviderSettings(name, own.pop("use", name), entries, **own)
    return found
