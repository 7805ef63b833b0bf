"""Published weights of the field, read without running anything that a file says.

A file becomes settings, named as the fields of `ModelConfig`, and a state named as that of `CopyModel`:

* SSCD, `sscd_*.torchvision.pt` (Pizzi et al., arXiv:2202.10261; MIT, weights included): torchvision's ResNet-50 under
  `backbone.`, whose `fc` is the projection; GeM with p = 3; squeezed to 320 px, as its authors advise for squares.
* ISC21's winner, `isc_ft_v107.pth.tar`, `isc_selfsup_v98.pth.tar` (Yokoo, arXiv:2112.04323; MIT): timm's
  EfficientNetV2-M without its last convolution under `module.backbone.`, then `fc` and `bn`; GeM with p = 1; 512 px.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import torch
from torch import Tensor, nn

from isc.errors import InputError
from isc.io import atomic_path
from isc.progress import progress

SUFFIXES = (".pt", ".pth", ".pth.tar")
PUBLISHED = "an SSCD *.torchvision.pt or an isc_*.pth.tar of the ISC21 winner"
SSCD = {"backbone.conv1.weight", "backbone.fc.weight", "backbone.fc.bias"}  # names that tell the layouts apart
WINNER = {"backbone.conv_stem.weight", "fc.weight", "bn.weight"}
BLOCK = 1 << 20  # bytes read at once
STALL = 60.0  # seconds without an answer after which a download is given up

Settings = dict[str, Any]  # fields of ModelConfig
State = dict[str, Tensor]  # names as in CopyModel


# --- getting a file --------------------------------------------------------------------------------------------------


def is_url(location: str) -> bool:
    """Whether `fetch` would go to the network, or refuse to."""
    return "://" in location


def fetch(location: str) -> Path:
    """The file at `FILE`, `FILE#sha256=HEX` or `https://…#sha256=HEX`; a URL must come with its checksum.

    A download lands in the cache folder only when its checksum is right, and is checked again before every use.
    """
    place, _, given = location.partition("#sha256=")
    expected = given.lower()
    if given and not re.fullmatch(r"[0-9a-f]{64}", expected):
        raise InputError(f"{location}: sha256={given}; expected 64 hexadecimal digits")
    if not is_url(place):
        path = Path(place) if given else Path(location)
        if not path.is_file():
            raise InputError(f"{path}: no such file; expected {PUBLISHED}, or https://…#sha256=HEX")
        if given:
            _check_sha256(path, expected, place)
        return path
    _check_scheme(place)
    if not given:
        raise InputError(f"{place}: no checksum; add #sha256=HEX, the file's SHA-256, so that it is what you mean")
    return _from_cache(place, expected)


def cache_folder() -> Path:
    """`isc` in XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isc"


def _from_cache(url: str, expected: str) -> Path:
    """The file of this checksum in the cache, downloaded where it is absent or has changed."""
    name = Path(urlsplit(url).path).name or "download"
    path = cache_folder() / f"{expected[:16]}-{name}"
    if not path.is_file() or _sha256(path) != expected:
        with atomic_path(path) as beside:
            with beside.open("wb") as file:
                _download(url, file)
            _check_sha256(beside, expected, url)
    return path


def _check_sha256(path: Path, expected: str, place: str) -> None:
    found = _sha256(path)
    if found != expected:
        raise InputError(f"{place}: its SHA-256 is {found}; expected {expected}; not used, get the file again")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _check_scheme(url: str) -> None:
    parts = _asking(url, lambda: urlsplit(url))
    if not (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or ""))):
        raise InputError(f"{url}: only https is fetched; download the file yourself and give its path")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _StayOnHttps(HTTPRedirectHandler):
    def redirect_request(  # noqa: PLR0917  the library's signature
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        _check_scheme(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, file: IO[bytes]) -> None:
    """Append what the URL gives. Its own errors become InputError; those of `file` stay OSError."""
    opener = build_opener(_StayOnHttps)
    with (
        _asking(url, lambda: opener.open(url, timeout=STALL)) as answer,
        progress(f"download {urlsplit(url).path.rpartition('/')[2]}", "bytes") as report,
    ):
        done, total = 0, int(answer.headers.get("Content-Length") or 0)
        while block := _asking(url, lambda: answer.read(BLOCK)):
            file.write(block)
            done += len(block)
            report(done, max(total, done))


def _asking(url: str, question: Callable[[], Any]) -> Any:
    try:
        return question()
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{url}: cannot be fetched ({reason}); download the file yourself and give its path"
        ) from error


# --- reading it ------------------------------------------------------------------------------------------------------


def read_checkpoint(path: Path) -> tuple[Settings, State]:
    """Settings and state of a published file; InputError where it is none, with what to use instead."""
    loaded = _load(path)
    state = _state_of(loaded, path)
    if state.keys() >= SSCD:
        return _sscd(state, path=path)
    if state.keys() >= WINNER:
        return _isc21_winner(state, arch=loaded.get("arch"), path=path)
    if "embeddings.1.weight" in state:
        raise InputError(
            f"{path}: SSCD's weights in Classy Vision's names; expected the .torchvision.pt of the same name "
            "(sscd_disc_large has none)"
        )
    names = ", ".join(list(state)[:3])
    raise InputError(f"{path}: {len(state)} tensors named {names}, …, a layout not known; expected {PUBLISHED}")


def read_state(path: Path) -> State:
    """The tensors of any file of torch.save by name, out of its `state_dict` and without `module.` before them."""
    return _state_of(_load(path), path)


def is_published(state: State) -> bool:
    """Whether `read_checkpoint` knows a file with these tensors."""
    return state.keys() >= SSCD or state.keys() >= WINNER


def _state_of(loaded: Mapping[str, Any], path: Path) -> State:
    held = loaded.get("state_dict", loaded)
    if not isinstance(held, Mapping) or not held:
        raise InputError(f"{path}: no weights in it; expected {PUBLISHED}")
    for name, value in held.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(f"{path}: {name} is {type(value).__name__}, no tensor; expected {PUBLISHED}")
    return {name.removeprefix("module."): value for name, value in held.items()}


def _sscd(state: State, *, path: Path) -> tuple[Settings, State]:
    settings = {
        "backbone": "resnet50",
        "dim": _length(state["backbone.fc.weight"], path=path),
        "gem_power": 3.0,
        "batch_norm": False,
        "conv_head": True,
        "image_size": 320,
    }
    return settings, _renamed(state, {"backbone.fc.": "linear."})


def _isc21_winner(state: State, *, arch: object, path: Path) -> tuple[Settings, State]:
    if arch not in (None, "tf_efficientnetv2_m_in21ft1k", "tf_efficientnetv2_m.in21k_ft_in1k"):
        raise InputError(f"{path}: arch={arch}; expected tf_efficientnetv2_m_in21ft1k, that of isc_ft_v107.pth.tar")
    settings = {
        "backbone": "tf_efficientnetv2_m",
        "dim": _length(state["fc.weight"], path=path),
        "gem_power": 1.0,  # of features above 0 alone, as in GeM, so not the plain mean
        "batch_norm": True,
        "conv_head": False,
        "image_size": 512,
    }
    return settings, _renamed(state, {"fc.": "linear.", "bn.": "norm."})


def _length(projection: Tensor, *, path: Path) -> int:
    """How many numbers a projection [dim, channels] gives."""
    if projection.ndim != 2:
        raise InputError(f"{path}: its fc.weight has shape {tuple(projection.shape)}; expected [dim, channels]")
    return len(projection)


def _renamed(state: State, prefixes: Mapping[str, str]) -> State:
    """The same tensors, the first prefix that a name has replaced; other names stay."""
    renamed = {}
    for name, value in state.items():
        old = next((old for old in prefixes if name.startswith(old)), "")
        renamed[prefixes.get(old, "") + name.removeprefix(old)] = value
    return renamed


def _load(path: Path) -> Mapping[str, Any]:
    """What torch.save wrote, as long as it is tensors, numbers, texts and their containers.

    `argparse.Namespace`, a bag of names and values that training scripts leave beside their weights, is let through.
    """
    if not path.name.lower().endswith(SUFFIXES):
        raise InputError(f"{path}: expected a file ending in {', '.join(SUFFIXES)}")
    if _is_torchscript(path):
        raise InputError(
            f"{path}: a TorchScript program, and programs are not run; expected weights alone, for SSCD the "
            ".torchvision.pt of the same name"
        )
    try:
        with torch.serialization.safe_globals([Namespace]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, by what is wrong with the bytes
        raise InputError(f"{path}: {_why_unreadable(error)}") from error
    if not isinstance(loaded, Mapping):
        raise InputError(f"{path}: holds a {type(loaded).__name__}; expected {PUBLISHED}")
    return loaded


def _is_torchscript(path: Path) -> bool:
    """Its archives hold a table of constants beside their code; those of torch.save hold neither."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False  # torch.load says what is wrong with it


def _why_unreadable(error: Exception) -> str:
    named = re.search(r"GLOBAL (\S+)", str(error))
    if named:
        return (
            f"asks for {named[1]} to be run, and no code of a file is run; expected tensors alone, as "
            "torch.save(model.state_dict(), FILE) writes them"
        )
    return f"not a file of torch.save, or cut short ({type(error).__name__}); get the file again"


# --- putting it into a network ---------------------------------------------------------------------------------------


def without_conv_head(backbone: Any) -> Any:
    """An EfficientNet of timm that ends with its last block: `conv_head` and `bn2` do nothing from now on.

    Changes the network that it is given, as `load_into` does: its features become those of the last block, which
    `num_features` then counts.
    """
    last = getattr(backbone, "conv_head", None)
    if not isinstance(last, nn.Conv2d | nn.Identity):
        raise InputError(
            f"model.conv_head=false: {type(backbone).__name__} has no such layer; expected an EfficientNet"
        )
    if isinstance(last, nn.Conv2d):
        backbone.num_features = last.in_channels
        backbone.conv_head, backbone.bn2 = nn.Identity(), nn.Identity()
    return backbone


def load_into(model: nn.Module, state: Mapping[str, Tensor], *, path: Path) -> None:
    """Give the model these weights; InputError names what is missing, what is left over and what does not fit.

    Counters of batches, which some files leave out and no descriptor depends on, may be absent.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unknown = [name for name in state if name not in own]
    if missing or unknown:
        raise InputError(f"{path}: does not fit the model: missing {_some(missing)}; unexpected {_some(unknown)}")
    for name, value in state.items():
        if value.shape != own[name].shape:
            raise InputError(f"{path}: {name} has shape {tuple(value.shape)}; expected {tuple(own[name].shape)}")
    model.load_state_dict(own | dict(state))


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "") if listed else "nothing"
