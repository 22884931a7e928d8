"""The pages of a reader study: a reader sees films, own calls and, with aid, what the system shows.

Nothing else leaves the server: no truth, no other reader, no pseudonym, and of the system only what it would
show of a new film.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timezone

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from common.reading.pages import page
from common.reading.pictures import png
from common.reading.study import Study
from common.reading.tested import TestedRoom


class StudyPages:
    """The pages of a study.

    Args:
        study: Study that goes on.
        room: Test films, which hold more than a reader may see.
    """

    def __init__(self, study: Study, room: TestedRoom) -> None:
        self._study, self._room = study, room
        self._row_of = {case: row for row, case in enumerate(room.cases.case.tolist())}
        self.routes: list[BaseRoute] = [
            Route("/", self._door),
            Route("/reader/{code}/", self._page),
            Route("/reader/{code}/state", self._state),
            Route("/reader/{code}/film/{session:int}/{position:int}.png", self._picture),
            Route("/reader/{code}/call", self._call, methods=["POST"]),
        ]

    def _reader(self, request: Request) -> str:
        code: str = request.path_params["code"]
        if code not in self._study.plan.readers:
            raise HTTPException(404, "the plan has no reader of this code")
        return code

    def _door(self, request: Request) -> Response:
        """Where a reader enters by a code."""
        code = request.query_params.get("code")
        if code in self._study.plan.readers:
            return RedirectResponse(f"reader/{code}/")
        said = "" if code is None else "The plan has no reader of this code."
        return page("study.html.j2", static="static", reader="", said=said)

    def _page(self, request: Request) -> Response:
        return page("study.html.j2", static="../../static", reader=self._reader(request), said="")

    def _state(self, request: Request) -> Response:
        """The film at hand, or an earlier one of the session."""
        reader, asked = self._reader(request), request.query_params.get("position", "")
        place, sessions = self._study.place(reader), self._study.plan.readers[reader]
        session, last = place.session, self._study.last(place)
        position = min(int(asked), last) if asked.isdecimal() else last
        earlier = self._study.earlier(reader, session, position)
        aid = self._study.plan.system if sessions[session] else None
        film = self._room.as_read(self._row(reader, session, position), aid)
        return JSONResponse(
            asdict(place)
            | {
                "sessions": len(sessions),
                "aid": sessions[session],
                "position": position,
                "films": len(self._study.plan.cases),
                "earlier": earlier and {key: earlier[key] for key in ("call", "confidence")},
                "film": asdict(film),
            }
        )

    def _row(self, reader: str, session: int, position: int) -> int:
        return self._row_of[self._study.plan.order(reader, session)[position]]

    def _picture(self, request: Request) -> Response:
        reader, asked = self._reader(request), request.path_params
        session, position = int(asked["session"]), int(asked["position"])
        place = self._study.place(reader)
        # one ahead, so that the next film is there when it is asked for
        if session != place.session or position > min(place.called + 1, len(self._study.plan.cases) - 1):
            raise HTTPException(404)
        return Response(png(self._room.pixels(self._row(reader, session, position))), media_type="image/png")

    async def _call(self, request: Request) -> Response:
        reader = self._reader(request)
        try:
            said = await request.json()
            said["at"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
            # in the loop's own thread: one after the other
            self._study.call(reader, said["session"], said["position"], said)
        except (ValueError, TypeError, KeyError) as error:
            raise HTTPException(400, f"this is no call: {error}") from None
        return await run_in_threadpool(self._state, request)
