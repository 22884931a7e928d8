"""The server of the reading room: on this machine only, behind a token, with nothing from outside."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount

from common.command_line import ReadOptions
from common.films.own_outputs import RESEARCH_ONLY
from common.reading.out_of_fold import OutOfFoldRoom
from common.reading.pages import refused, rooms_pages, static_files
from common.reading.predicted import PredictedRoom
from common.reading.room import Room
from common.reading.study import Study
from common.reading.study_pages import StudyPages
from common.reading.tested import TestedRoom
from common.refusal import Refusal

HOST = "127.0.0.1"
# The one style that OpenSeadragon writes into a page, known by its hash
_VIEWER_STYLE = "'sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE='"
# No page can load or send anything but from and to this server, be framed, or tell anybody its address.
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; script-src 'self'; style-src 'self' {_VIEWER_STYLE}; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",  # films of patients stay out of the browser's cache on the disk
}


def application(routes: Sequence[BaseRoute], token: str) -> Starlette:
    """The ASGI application whose addresses all begin with the token.

    Args:
        routes: Routes of the pages, behind the token.
        token: Random text; a request without it gets 404, whatever it asks for.
    """

    async def behind_token(request: Request, call_next: RequestResponseEndpoint) -> Response:
        given = request.url.path.split("/", 2)[1]
        known = secrets.compare_digest(given.encode(), token.encode())
        response = await call_next(request) if known else PlainTextResponse("Not Found", 404)
        response.headers.update(HEADERS)
        return response

    return Starlette(
        routes=[Mount("/{token}", routes=[static_files(), *routes])],  # which `behind_token` compares
        exception_handlers={Refusal: refused},
        middleware=[
            # Another name would be that of a page elsewhere, which had the browser take it for this machine.
            Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]),
            Middleware(BaseHTTPMiddleware, dispatch=behind_token),
        ],
    )


def open_rooms(options: ReadOptions) -> None:
    """Open what the command line names, until Ctrl-C.

    Raises:
        Refusal: What is to be shown is missing or does not belong together; the port is taken.
    """
    if options.predicted is not None:
        serve(rooms_pages([PredictedRoom(options.predicted)]), options.port)
    elif options.study is not None:
        tested = TestedRoom()
        study = Study(options.study, tested.case.tolist(), list(tested.results), tested.meta["films"])
        try:
            serve(StudyPages(study, tested).routes, options.port)
        finally:
            study.close()
    else:
        serve(rooms_pages(rooms_of_results()), options.port)


def rooms_of_results() -> list[Room]:
    """The rooms of test films, with and without a label, where there are such, and of out-of-fold films."""
    unlabelled = TestedRoom(labelled=False)
    rooms: list[Room] = [TestedRoom()] if len(unlabelled.case) < unlabelled.meta["n_cases"] else []
    rooms += [unlabelled] if len(unlabelled.case) else []
    try:
        rooms.append(OutOfFoldRoom())
    except Refusal as refusal:  # results may lie alone, without what they were made from
        print(f"without the room of out-of-fold films: {refusal}")
    return rooms


def serve(routes: Sequence[BaseRoute], port: int) -> None:
    """Serve pages on this machine until Ctrl-C, and say where.

    Args:
        routes: Routes of the pages, behind the token.
        port: TCP port; 0: a free one.

    Raises:
        Refusal: The port is taken.
    """
    token = secrets.token_urlsafe(24)
    try:
        listening = socket.create_server((HOST, port))  # before the address is said: who asks at once waits
    except OSError as error:
        raise Refusal(f"port {port} cannot be used", found=error.strerror, do="leave --port out") from None
    port = listening.getsockname()[1]
    print(f"open http://{HOST}:{port}/{token}/\n  {RESEARCH_ONLY}; Ctrl-C ends it", flush=True)
    # No log of requests: the token is in each of them.
    server = uvicorn.Server(
        uvicorn.Config(application(routes, token), log_level="warning", access_log=False, server_header=False)
    )
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:  # the way to end it
        print("ended")
