"""The connection to a Ray cluster: join or start it, check its nodes before long work, report its errors in one line.

All nodes need the same version of isc, and must see the same files under the same paths.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isc import __version__
from isc.errors import InputError, needing

RETRIES = 3  # further attempts at a task whose worker died, before the run is given up

ANSWER = 10.0  # seconds within which a cluster has to answer

Node = Mapping[str, Any]  # as ray.nodes() describes it


@contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """Connect to the Ray cluster at `address` during the block; the end of the block also ends the work started there.

    Without an address, use the cluster of the environment variable RAY_ADDRESS, or else start one on this machine and
    stop it at the end; "local" always does the latter. An existing connection of this program is used, and stays open.
    Raises InputError if ray is not installed, no cluster answers, or the existing connection has another address.
    """
    ray = require_ray()
    if ray.is_initialized():
        there = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", there):
            raise InputError(f"address={address}: this program is connected to {there}; expected the same")
        yield
        return
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    if where == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _refuse_silent(where)
    _hush()
    try:
        with _without(b"RAY_BACKEND_LOG_LEVEL", b"gcs_client.cc"):
            ray.init(address=where, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _no_cluster(where, error) from error
    try:
        yield
    finally:
        ray.shutdown()


def _hush() -> None:
    """Silence most of Ray's messages; the important ones come as exceptions or Python warnings."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # a note on the cluster's token


def _refuse_silent(address: str) -> None:
    """Raise InputError if nothing answers at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> InputError:
    if "InvalidAuthToken" in f"{error} {error.__cause__}":
        return InputError(
            f"address={address}: the Ray cluster there asks for its token; expected RAY_AUTH_MODE=token in the "
            "environment, and the token in ~/.ray/auth_token (see `ray get-auth-token`)"
        )
    return InputError(
        f"address={address}: no Ray cluster of this version of Ray and Python answers there ({_first_line(error)}); "
        "expected HOST:PORT of one that `ray start` began, or none to start one here"
    )


@contextmanager
def _without(*texts: bytes) -> Iterator[None]:
    """Remove the lines with any of the `texts` from stderr, also lines that libraries below Python write."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as caught:
        before = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            caught.seek(0)
            for line in caught:
                if not any(text in line for text in texts):
                    os.write(2, line)


def require_ray() -> Any:
    """Import and return the package ray. Raises InputError if it is not installed."""
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "RAY_BACKEND_LOG_LEVEL")  # read when ray is imported
    with needing("engine=ray", extra="ray"):
        import ray
    return ray


def working_nodes() -> list[Node]:
    """Return the live nodes that have at least one CPU. Raises InputError if there is none."""
    nodes: list[Node] = [
        node for node in require_ray().nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
    ]
    if not nodes:
        raise InputError("the Ray cluster has no node with a CPU; expected at least one (see `ray status`)")
    return nodes


def check_nodes(nodes: list[Node], path: Path | None) -> None:
    """Raise InputError, naming the node, unless each node has this version of isc and sees the file `path`."""
    ray = require_ray()
    look = ray.remote(num_cpus=0, max_retries=0)(_look)
    answers = [
        look.options(scheduling_strategy=on_node(node["NodeID"], elsewhere=False)).remote(path) for node in nodes
    ]
    for node, answer in zip(nodes, answers, strict=True):
        host = node["NodeManagerHostname"]
        try:
            version, sees = ray.get(answer)
        except ray.exceptions.RayError as error:
            why = _first_line(getattr(error, "cause", None) or error)
            raise InputError(
                f"node {host}: cannot run isc ({why}); expected isc {__version__} and its dependencies there"
            ) from error
        if version != __version__:
            raise InputError(f"node {host}: has isc {version}, this machine {__version__}; expected the same")
        if not sees:
            raise InputError(f"node {host}: does not see {path}; expected a file system that all nodes share")


def _look(path: Path | None) -> tuple[str, bool]:
    return __version__, path is None or path.is_file()


def on_node(node: str, *, elsewhere: bool) -> Any:
    """Return Ray's scheduling strategy for work on this node; `elsewhere` allows another if this node is gone."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=elsewhere)


@contextmanager
def named_node() -> Iterator[None]:
    """Add the name of this machine to the message of an InputError."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{error} (on node {socket.gethostname()})") from error


@contextmanager
def as_input_errors(what: Callable[[], str]) -> Iterator[None]:
    """Turn the errors of Ray into an InputError of one line.

    This is the InputError of a worker, or the cause if workers or machines died repeatedly; the latter message ends
    with the text of `what()`. Other errors of our own code are raised unchanged.
    """
    ray = require_ray()
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        cause = _root(error)
        if isinstance(cause, InputError):
            raise InputError(_first_line(cause)) from error  # Ray may have added lines
        if isinstance(cause, ray.exceptions.RayError):
            raise _gave_up(cause, what()) from error
        raise
    except ray.exceptions.RayError as error:
        raise _gave_up(error, what()) from error


def _gave_up(error: BaseException, what: str) -> InputError:
    return InputError(
        f"the cluster gave up after {RETRIES} more attempts ({type(error).__name__}: {_first_line(error)}); {what}"
    )


def _root(error: BaseException) -> BaseException:
    """Return the error that the worker raised, without Ray's wrappers."""
    import ray

    while isinstance(error, ray.exceptions.RayTaskError | ray.exceptions.UserCodeException):
        inner = getattr(error, "cause", None) or error.__cause__
        if inner is None:
            break
        error = inner
    return error


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
