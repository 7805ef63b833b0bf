"""The keeper: it delivers the outbox, does imports, and removes what is no longer needed."""

from __future__ import annotations

import logging
import signal
import threading
import time

import sqlalchemy as sa

from isc.serve.database import Database, DatabaseAway
from isc.serve.files import PictureFiles
from isc.serve.importing import next_import
from isc.serve.outbox import addresses, deliver, new_holder, post
from isc.serve.providers.context import weights_of
from isc.serve.schema import event, outbox, removal
from isc.serve.settings import Settings

log = logging.getLogger(__name__)
EVERY = 0.5  # seconds between two looks
TIDY = 600.0  # seconds between two cleanings
EVENTS_KEPT = 7 * 86_400.0  # seconds
DELIVERED_KEPT = 30 * 86_400.0
ARRIVING_KEPT = 3_600.0
REMOVED_KEPT = 30 * 86_400.0  # of the files of removed pictures, for machines that were away


def run_keeper(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: stop.set())
    database = Database(settings.database)
    threads = [
        threading.Thread(target=_loop, args=(stop, work), daemon=True)
        for work in (_delivery(database, settings), _imports(database, settings), _tidying(database, settings))
    ]
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in threads:
        thread.join(15.0)


def _loop(stop: threading.Event, work: object) -> None:
    assert callable(work)
    while not stop.is_set():
        try:
            work()
        except DatabaseAway as error:
            log.error("the database is away (%s)", error)
            stop.wait(2.0)
        except Exception:
            log.exception("a round failed")
            stop.wait(5.0)
        stop.wait(EVERY)


def _delivery(database: Database, settings: Settings) -> object:
    holder, urls = new_holder(), addresses(settings)
    return lambda: deliver(database, urls, post, holder=holder)


def _imports(database: Database, settings: Settings) -> object:
    found: list[str] = []

    def work() -> None:
        if not found:
            from isc.model.load_inference import load_inference_model

            found.append(weights_of(load_inference_model(settings.model)))
        while next_import(database, weights=found[0]):
            pass

    return work


def _tidying(database: Database, settings: Settings) -> object:
    files, last = PictureFiles(settings.data / "pictures"), [0.0]

    def work() -> None:
        if time.monotonic() - last[0] < TIDY and last[0]:
            return
        last[0] = time.monotonic()
        tidy(database, files)

    return work


def tidy(database: Database, files: PictureFiles) -> None:
    """Remove old events, old deliveries, the names of pictures removed long ago, and what killed uploads left."""
    now = time.time()
    files.tidy(older=now - ARRIVING_KEPT)
    with database.writing() as connection:
        connection.execute(sa.delete(event).where(event.c.created < now - EVENTS_KEPT))
        old = (outbox.c.state == "delivered") & (outbox.c.delivered < now - DELIVERED_KEPT)
        connection.execute(sa.delete(outbox).where(old))
        gone = (removal.c.created < now - REMOVED_KEPT) & removal.c.sha256.is_not(None)
        connection.execute(sa.update(removal).where(gone).values(sha256=None, path=None))
