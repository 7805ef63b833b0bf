"""The connection to a Ray cluster: joined or started here, its machines looked at before hours are spent, and its many
ways to fail as one line.

The machines have the same isc, and see the same files under the same names.
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
from isc.errors import InputError

RETRIES = 3  # deaths of a worker, at the same piece of work, before the run is given up

ANSWER = 10.0  # seconds within which a cluster has to answer

Node = Mapping[str, Any]  # as ray.nodes() describes it


@contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """A connection to the Ray cluster at this address, which ends with the block, and with it all work begun there.

    Without an address it is the cluster of the environment's RAY_ADDRESS, or else one that is started on this machine
    and stopped at the end ("local" asks for that). In a program that is connected already its connection is used, and
    stays. Raises InputError where ray is not installed or no cluster answers.
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
    """Less of what Ray says: what matters of it comes as an exception, or as a warning of Python's."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # that a cluster started here has a token


def _refuse_silent(address: str) -> None:
    """InputError where nothing at all answers at HOST:PORT, which Ray would try for minutes."""
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
    """Keep lines with any of these texts, which libraries below Python write, from stderr."""
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
    """The package ray."""
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "RAY_BACKEND_LOG_LEVEL")  # read as ray is imported
    try:
        import ray
    except ImportError as error:
        raise InputError("engine=ray needs the package ray; install it: pip install 'isc[ray]'") from error
    return ray


def working_nodes() -> list[Node]:
    """The nodes that are alive and have a core for us."""
    nodes: list[Node] = [
        node for node in require_ray().nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
    ]
    if not nodes:
        raise InputError("the Ray cluster has no node with a CPU; expected at least one (see `ray status`)")
    return nodes


def check_nodes(nodes: list[Node], path: Path | None) -> None:
    """Raise InputError, naming the node, unless each of them has this version of isc and sees the file `path`."""
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
    """Ray's word for work that belongs on a node; `elsewhere`: on another where that is gone."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=elsewhere)


@contextmanager
def named_node() -> Iterator[None]:
    """Say on which machine an InputError arose."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{error} (on node {socket.gethostname()})") from error


@contextmanager
def as_input_errors(what: Callable[[], str]) -> Iterator[None]:
    """Turn what Ray raises into one line: the InputError of a worker, or, where workers or machines died again and
    again, what happened; `what` says what is left. Other errors of our own code are raised as they are."""
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
    """What a worker raised, below Ray's wrappings."""
    import ray

    while isinstance(error, ray.exceptions.RayTaskError | ray.exceptions.UserCodeException):
        inner = getattr(error, "cause", None) or error.__cause__
        if inner is None:
            break
        error = inner
    return error


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
