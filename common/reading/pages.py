"""The pages of the rooms of films: what a browser may ask for, and nothing else of the disk."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from common.files import csv_text
from common.films.own_outputs import RESEARCH_ONLY
from common.reading.pictures import scale_png
from common.reading.room import Room, ShownFilm
from common.refusal import Refusal

MOST_PICTURES = 500  # in one archive of pictures
_HERE = Path(__file__).parent


def rooms_pages(rooms: Sequence[Room]) -> list[BaseRoute]:
    """The routes of rooms, the first one of which is entered first."""
    return [
        Route("/", lambda request: RedirectResponse(f"{rooms[0].name}/")),
        static_files(),
        *(Mount(f"/{room.name}", routes=_RoomPages(room, rooms).routes) for room in rooms),
    ]


def static_files() -> Mount:
    """The scripts and the style of the pages."""
    return Mount("/static", StaticFiles(directory=_HERE / "static"))


def page(template: str, **values: Any) -> HTMLResponse:
    """A page, with every text in it escaped."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    text = environment.get_template(template).render(research_only=RESEARCH_ONLY, **values)
    return HTMLResponse(text)


def film_json(film: ShownFilm, picture: str) -> dict[str, Any]:
    """A film for the viewer, and where its picture is."""
    return asdict(film) | {"picture": picture}


class _RoomPages:
    """The pages of one room.

    Args:
        room: Room whose films are shown.
        rooms: All rooms, which each page names.
    """

    def __init__(self, room: Room, rooms: Sequence[Room]) -> None:
        self._room, self._rooms = room, rooms
        self.routes = [
            Route("/", self._page),
            Route("/films", self._films),
            Route("/film/{row:int}", self._film),
            Route("/film/{row:int}.png", self._picture),
            Route("/thumbnail/{row:int}.jpg", self._thumbnail),
            Route("/map/{row:int}/{system}.png", self._map),
            Route("/scale.png", lambda request: _picture(scale_png(), "image/png")),
            Route("/figure/{name}.svg", self._figure),
            Route("/films.csv", self._table),
            Route("/pictures.zip", self._pictures),
        ]

    def _page(self, request: Request) -> Response:
        grid = self._room.grid(request.query_params)
        return page(
            "room.html.j2",
            room=self._room,
            rooms=self._rooms,
            facets={name: np.unique(values).tolist() for name, values in grid.facets.items()},
            orders=list(grid.orders),
            films=len(grid.case),
            static="../static",
        )

    def _films(self, request: Request) -> Response:
        """The films that a query chooses: rows, tiles, counts and the table beside them."""
        query = request.query_params
        grid = self._room.grid(query)
        rows = grid.chosen(query)
        return JSONResponse(
            {
                "rows": rows.tolist(),
                "tiles": [[str(grid.case[row]), grid.tiles[row]] for row in rows.tolist()],
                "counts": grid.counts(query),
                "summary": asdict(self._room.summary(query, rows)),
            }
        )

    def _film(self, request: Request) -> Response:
        row = self._row(request)
        return JSONResponse(film_json(self._room.film(row), f"film/{row}.png"))

    def _picture(self, request: Request) -> Response:
        return _picture(self._room.picture(self._row(request)), "image/png")

    def _thumbnail(self, request: Request) -> Response:
        return _picture(self._room.thumbnail(self._row(request)), "image/jpeg")

    def _map(self, request: Request) -> Response:
        return _picture(self._room.map(self._row(request), request.path_params["system"]), "image/png")

    def _figure(self, request: Request) -> Response:
        return _picture(self._room.figure(request.path_params["name"], request.query_params), "image/svg+xml")

    def _row(self, request: Request) -> int:
        row: int = request.path_params["row"]
        if row >= len(self._room.grid({}).case):
            raise HTTPException(404)
        return row

    # --- what is taken home ------------------------------------------------------------------------

    def _table(self, request: Request) -> Response:
        """The films of a query as CSV."""
        grid = self._room.grid(request.query_params)
        text = csv_text(*grid.table(grid.chosen(request.query_params)))
        return _download(text.encode(), "text/csv; charset=utf-8", "films.csv")

    def _pictures(self, request: Request) -> Response:
        """The same, and the pictures of these films with every outline, as a zip archive."""
        grid = self._room.grid(request.query_params)
        rows = grid.chosen(request.query_params)
        if len(rows) > MOST_PICTURES:
            raise HTTPException(400, f"{len(rows)} films are too many: choose at most {MOST_PICTURES}")
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:  # not compressed: PNG is
            file.writestr("films.csv", csv_text(*grid.table(rows)))
            file.writestr("README.txt", f"{self._room.title}: {RESEARCH_ONLY}.\n")
            for row in rows.tolist():
                name = "".join(c if c.isalnum() or c in "-_." else "_" for c in str(grid.case[row]))
                file.writestr(f"{row:05}_{name}.png", self._room.outlined(row))
        return _download(archive.getvalue(), "application/zip", "pictures.zip")


def _picture(content: bytes | None, kind: str) -> Response:
    if content is None:
        raise HTTPException(404)
    return Response(content, media_type=kind)


def _download(content: bytes, kind: str, name: str) -> Response:
    headers: Mapping[str, str] = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=kind, headers=headers)


async def refused(request: Request, error: Exception) -> Response:
    """What a page says of a fault that it was refused for."""
    assert isinstance(error, Refusal)
    return Response(str(error), status_code=409, media_type="text/plain; charset=utf-8")
