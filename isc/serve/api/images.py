"""The routes of pictures: upload, import, results, deletion."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import sqlalchemy as sa
from fastapi import APIRouter, Depends, File, Query, Response, UploadFile
from fastapi import Path as InPath

from isc.errors import InputError
from isc.photos.decode import size_of
from isc.serve.api.bodies import NewImport, NewState, NewUrl
from isc.serve.api.guard import Admin, Caller, Reviewing, Uploader, count_uploads
from isc.serve.api.models import (
    MOST_ID,
    Accepted,
    Image,
    Images,
    Import,
    RefusedFile,
    Results,
    Uploaded,
)
from isc.serve.api.problems import ApiProblem, answers
from isc.serve.api.queries import cursor_of, image_of, key_of, one_image, results_of
from isc.serve.api.state import State, state_of
from isc.serve.database import trying_again
from isc.serve.files import TooLarge
from isc.serve.forgetting import delete_image, forget_removed
from isc.serve.intake import Blocked, NewImage, blocked, on_block_list, take_in
from isc.serve.kinds import ImageState, Role
from isc.serve.previews import forget_previews
from isc.serve.reasons import BY_PERSON
from isc.serve.schema import event, folder_import, image

router = APIRouter(prefix="/api", tags=["images"])
Shared = Annotated[State, Depends(state_of)]
ImageId = Annotated[int, InPath(ge=1, le=MOST_ID)]
Cursor = Annotated[str | None, Query(max_length=200)]
Limit = Annotated[int, Query(ge=1, le=200)]


@router.post("/images", status_code=202, response_model=Uploaded, responses=answers(413, 415))
def upload(
    state: Shared,
    caller: Uploader,
    files: Annotated[list[UploadFile], File(min_length=1, description="One picture or many.")],
) -> Uploaded:
    """Take pictures in. They are kept and queued when this answers; results come later."""
    caps = state.settings.caps
    if len(files) > caps.batch:
        raise ApiProblem(413, f"{len(files)} files; expected at most {caps.batch}")
    kept: list[NewImage] = []
    refused: list[RefusedFile] = []
    status = 422
    for one in files:
        count_uploads(state, caller)
        name = _name(one.filename)
        try:
            kept.append(_kept(state, one.file, name, caller))
        except TooLarge as error:
            status = 413
            refused.append(RefusedFile(name=name, reason=str(error)))
        except InputError as error:
            status = 415 if status != 413 else status
            refused.append(RefusedFile(name=name, reason=str(error)))
    stopped = blocked(state.database, [one.sha256 for one in kept])
    for new in kept:
        if new.sha256 in stopped:
            refused.append(RefusedFile(name=new.name, reason=on_block_list(new.sha256)))
            status = 403
            _discard(state, new.sha256)
    kept = [new for new in kept if new.sha256 not in stopped]
    if not kept:
        why = refused[-1 if stopped else 0]
        raise ApiProblem(status, f"{why.name}: {why.reason}")
    return Uploaded(images=_accepted(state, kept), refused=refused)


def _name(filename: str | None) -> str:
    """Return the last part of a file's name, printable."""
    last = (filename or "").replace("\\", "/").rpartition("/")[2]
    return "".join(c if c.isprintable() else "�" for c in last)[:255] or "unnamed"


def _kept(state: State, stream: object, name: str, caller: Caller) -> NewImage:
    """Write a file to its place. Raises InputError for one that is no picture, or too large."""
    assert hasattr(stream, "read")
    caps = state.settings.caps
    digest, size = state.files.keep(stream, most=caps.bytes)  # type: ignore[arg-type]
    width, height = size_of(state.files.path(digest))
    if width * height > caps.pixels:
        _discard(state, digest)
        raise TooLarge(f"{width:,} × {height:,} pixels; expected at most {caps.pixels:,}")
    return NewImage(digest, size, name, None, caller.name, width or None, height or None)


def _discard(state: State, digest: str) -> None:
    """Remove the file of a picture that was not taken in; one that was there before stays."""
    with state.database.reading() as connection:
        known = connection.execute(sa.select(image.c.id).where(image.c.sha256 == digest)).first()
    if known is None:
        state.files.remove(digest)


def _accepted(state: State, kept: list[NewImage]) -> list[Accepted]:
    try:
        taken = take_in(state.database, kept)
    except Blocked:
        for one in kept:
            _discard(state, one.sha256)
        raise
    return [
        Accepted(id=number, sha256=one.sha256, name=one.name, new=fresh, results=f"/api/images/{number}/results",
                 events=f"/api/events?image={number}")
        for one, (number, fresh) in zip(kept, taken, strict=True)
    ]  # fmt: skip


@router.post("/images/from-url", status_code=202, response_model=Uploaded, responses=answers(413, 415, 502))
def upload_from_url(state: Shared, caller: Uploader, body: NewUrl) -> Uploaded:
    """Fetch a picture from one of the allowed hosts, and take it in. Private addresses are refused."""
    from isc.find.fetch import fetch_picture

    count_uploads(state, caller)
    hosts = state.settings.fetch_hosts
    try:
        host = urlsplit(body.url).hostname
    except ValueError:
        host = None
    if host not in hosts:
        raise ApiProblem(403, "the host is not on the list of allowed hosts (fetch_hosts)")
    try:
        data = fetch_picture(body.url, hosts=hosts)
    except InputError as error:
        raise ApiProblem(502, str(error)) from error
    try:
        kept = _kept(state, io.BytesIO(data), _name(urlsplit(body.url).path), caller)
    except TooLarge as error:
        raise ApiProblem(413, str(error)) from error
    except InputError as error:
        raise ApiProblem(415, str(error)) from error
    return Uploaded(images=_accepted(state, [kept]), refused=[])


@router.get("/images", response_model=Images, responses=answers())
def list_images(
    state: Shared,
    caller: Uploader,
    *,
    sha256: Annotated[str | None, Query(pattern="^[0-9a-f]{64}$")] = None,
    image_state: Annotated[ImageState | None, Query(alias="state")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Images:
    """List pictures, the newest first. An uploader sees its own."""
    wanted = sa.select(image).order_by(image.c.id.desc()).limit(limit + 1)
    if sha256 is not None:
        wanted = wanted.where(image.c.sha256 == sha256)
    if image_state is not None:
        wanted = wanted.where(image.c.state == image_state)
    if caller.holder.role is Role.upload:
        wanted = wanted.where(image.c.uploader == caller.name)
    if cursor is not None:
        wanted = wanted.where(image.c.id < int(key_of(cursor, 1)[0]))
    with state.database.reading() as connection:
        rows = connection.execute(wanted).all()
    following = cursor_of(rows[limit - 1].id) if len(rows) > limit else None
    return Images(items=[image_of(row) for row in rows[:limit]], next=following)


@router.get("/images/{image_id}", response_model=Image, responses=answers(404))
def get_image(state: Shared, caller: Uploader, image_id: ImageId) -> Image:
    """Return the facts of a picture."""
    with state.database.reading() as connection:
        return image_of(seen(connection, caller, image_id))


@router.get("/images/{image_id}/results", response_model=Results, responses=answers(404))
def get_results(state: Shared, caller: Uploader, image_id: ImageId) -> Results:
    """Return all that providers have said about a picture so far."""
    with state.database.reading() as connection:
        seen(connection, caller, image_id)
        return results_of(connection, image_id)


def seen(connection: sa.Connection, caller: Caller, image_id: int) -> Any:
    """Return a picture that the caller may see: an uploader its own. Raises ApiProblem 404."""
    row = one_image(connection, image_id)
    if caller.holder.role is Role.upload and row.uploader != caller.name:
        raise ApiProblem(404, f"image {image_id}: is not there")
    return row


@router.put("/images/{image_id}/state", response_model=Image, responses=answers(404))
def set_state(state: Shared, _: Admin, image_id: ImageId, body: NewState) -> Image:
    """Put a picture into the negative bank or into quarantine, or make it active again."""

    def write() -> Image:
        with state.database.writing() as connection:
            one_image(connection, image_id)
            new = {"state": body.state, **BY_PERSON.of_image()}
            connection.execute(sa.update(image).where(image.c.id == image_id).values(new))
            said = {"image_id": image_id, "kind": "state", "body": {"state": body.state}, "created": time.time()}
            connection.execute(sa.insert(event).values(said))
            return image_of(one_image(connection, image_id))

    result: Image = trying_again(write)
    return result


@router.delete("/images/{image_id}", status_code=204, response_class=Response, responses=answers(404))
def delete(state: Shared, _: Admin, image_id: ImageId) -> Response:
    """Remove a picture everywhere: its file, results, votes, descriptor, and its row in every index.

    The caches of other machines follow within seconds.
    """
    if not delete_image(state.database, state.files, image_id):
        raise ApiProblem(404, f"image {image_id}: is not there")
    forget_previews(state.settings.data, image_id)
    forget_removed(state.database, state.settings.cache_folder, state.files)
    return Response(status_code=204)


@router.post("/imports", status_code=202, response_model=Import, responses=answers())
def import_folder(state: Shared, _: Admin, body: NewImport) -> Import:
    """Take in all photos of a folder, or of an index; it happens in the background."""
    path = Path(body.path)
    allowed = [one.resolve() for one in state.settings.folders]
    if not any(path.resolve().is_relative_to(one) for one in allowed):
        raise ApiProblem(403, "the folder lies in none of the allowed ones (folders)")
    row = {"path": str(path), "state": "queued", "found": 0, "lease_until": 0.0, "created": time.time()}

    def write() -> int:
        with state.database.writing() as connection:
            key = connection.execute(sa.insert(folder_import).values(row)).inserted_primary_key
            return int(key[0]) if key else 0

    return _import(state, trying_again(write))


@router.get("/imports/{import_id}", response_model=Import, responses=answers(404))
def get_import(state: Shared, _: Reviewing, import_id: ImageId) -> Import:
    """Return how far an import is."""
    return _import(state, import_id)


def _import(state: State, number: int) -> Import:
    with state.database.reading() as connection:
        row = connection.execute(sa.select(folder_import).where(folder_import.c.id == number)).first()
    if row is None:
        raise ApiProblem(404, f"import {number}: is not there")
    return Import(id=row.id, path=row.path, state=row.state, found=row.found, error=row.error, created=row.created)
