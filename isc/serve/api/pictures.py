"""The files of pictures. Previews are drawn anew from the pixels; originals are only handed out to be saved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse

from isc.data.files import atomic_path
from isc.serve.api.guard import Reviewing
from isc.serve.api.images import ImageId, Shared
from isc.serve.api.problems import ApiProblem, answers
from isc.serve.api.queries import one_image
from isc.serve.api.streams import file_of
from isc.serve.previews import SIDES, preview_path
from isc.serve.reading import Unreadable
from isc.serve.schema import shop_picture

router = APIRouter(prefix="/pictures", tags=["pictures"])
QUIET = {"Content-Security-Policy": "default-src 'none'; sandbox", "Cache-Control": "private, max-age=3600"}
JPEG = file_of("image/jpeg", "The picture as a JPEG.")
BYTES = file_of("application/octet-stream", "The file as it came.")


@router.get("/{image_id}/preview.jpg", response_class=Response, responses={**JPEG, **answers(404, 415)})
def preview(
    state: Shared, _: Reviewing, image_id: ImageId, side: Annotated[int, Query(ge=1, le=4096)] = 1024
) -> Response:
    """Return a preview of 320 or 1024 pixels on the longest side, whichever is next to `side`."""
    size = next((one for one in SIDES if one >= side), SIDES[-1])
    with state.database.reading() as connection:
        row = one_image(connection, image_id)
    place = preview_path(state.settings.data, image_id, size)
    if not place.is_file():
        source = Path(row.path) if row.path else state.files.path(row.sha256)
        try:
            data = state.reader.preview(source, size)
        except Unreadable as error:
            raise ApiProblem(415, f"image {image_id}: {error}") from error
        with atomic_path(place) as beside:
            beside.write_bytes(data)
    return FileResponse(place, media_type="image/jpeg", headers=QUIET)


@router.get("/shop/{picture_id}.jpg", response_class=Response, responses={**JPEG, **answers(404)})
def shop(state: Shared, _: Reviewing, picture_id: ImageId) -> Response:
    """Return a small picture of a shop, as a provider gave it with an item; no file is opened for it."""
    with state.database.reading() as connection:
        jpeg = connection.scalar(sa.select(shop_picture.c.jpeg).where(shop_picture.c.id == picture_id))
    if jpeg is None:
        raise ApiProblem(404, f"picture {picture_id} of a shop: is not there")
    return Response(jpeg, media_type="image/jpeg", headers=QUIET)


@router.get("/{image_id}/original", response_class=Response, responses={**BYTES, **answers(404)})
def original(state: Shared, _: Reviewing, image_id: ImageId) -> Response:
    """Return the file itself, to be saved and not shown."""
    with state.database.reading() as connection:
        row = one_image(connection, image_id)
    place = Path(row.path) if row.path else state.files.path(row.sha256)
    if not place.is_file():
        raise ApiProblem(404, f"image {image_id}: its file is gone")
    return FileResponse(place, media_type="application/octet-stream", filename=row.name, headers=QUIET)
