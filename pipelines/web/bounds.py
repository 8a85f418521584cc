"""What every request must pass, and what every answer says: host, token, size, and the browser's own rules."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 20 << 20
"""Most bytes of a request's body."""
LINGER_S = 2.0
"""How long the rest of a body that is too large is read, so that its sender sees the answer."""
COOKIE = "vecbeam_token"
_RULES = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}
OPEN = ("/healthz",)
"""Paths that need no token: what a load balancer calls."""


class BodyTooLargeError(Exception):
    """A request's body has more than `MOST_BYTES` bytes."""


class Bounds:
    """Checks each request before the application sees it, and adds the rules of the browser to each answer.

    A page of another site can make a browser send requests to this machine under a name of its own. So only the names
    of this machine are answered, unless a token protects every request.

    Args:
        hosts: names that the header Host may have, without a port; empty for any.
        token: that each request needs; "" for none.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str], token: str) -> None:
        self._app = app
        self._hosts = frozenset(hosts)
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def ruled(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _RULES.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        answer = self._refused(scope, headers)
        if answer is not None:
            await answer(scope, receive, ruled)
            return
        try:
            if int(headers.get("content-length") or 0) > MOST_BYTES:
                raise BodyTooLargeError
            await self._app(scope, _bounded(receive), ruled)
        except BodyTooLargeError:
            await _too_large()(scope, receive, _lingering(receive, ruled))

    def _refused(self, scope: Scope, headers: Headers) -> Response | None:
        host = _without_port(headers.get("host", ""))
        if self._hosts and host not in self._hosts:
            return problem(
                421, "WrongHost", f"this server does not answer to the name {host!r}", "open http://127.0.0.1"
            )
        if not self._token or scope["path"] in OPEN:
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if given and hmac.compare_digest(given.encode(), self._token.encode()):
            answer = RedirectResponse(scope["path"], 303)
            answer.set_cookie(COOKIE, digest(self._token), httponly=True, samesite="strict")
            return answer
        if self._has_token(headers):
            return None
        return problem(401, "TokenMissing", "this server needs a token", "open the address that vecbeam serve printed")

    def _has_token(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token.encode()):
            return True
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        return hmac.compare_digest(cookie.encode(), digest(self._token).encode())


def digest(token: str) -> str:
    """What the cookie has instead of the token."""
    return hashlib.sha256(b"vecbeam " + token.encode()).hexdigest()


def problem(status: int, name: str, message: str, remedy: str = "") -> Response:
    """An error as JSON, as the command line prints it."""
    error: dict[str, Any] = {"class": name, "message": message, "remedy": remedy}
    return JSONResponse({"error": error}, status)


def _too_large() -> Response:
    answer = problem(413, "BodyTooLarge", f"the request has more than {MOST_BYTES >> 20} MiB", "send a smaller file")
    answer.headers["Connection"] = "close"  # else the rest of the body would still be read
    return answer


def _lingering(receive: Receive, send: Send) -> Send:
    """Sends an answer, and then reads what its request still sends, for a while, before the connection ends.

    A connection that is closed with unread bytes is reset, and its other end may lose an answer that it has not read.
    """

    async def lingering(message: Message) -> None:
        if message["type"] != "http.response.body":
            await send(message)
            return
        await send({**message, "more_body": True})
        try:
            async with asyncio.timeout(LINGER_S):
                bounded = _bounded(receive)
                while (await bounded()).get("more_body"):
                    pass
        except (TimeoutError, BodyTooLargeError):
            pass
        await send({"type": "http.response.body", "body": b""})

    return lingering


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _bounded(receive: Receive) -> Receive:
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MOST_BYTES:
            raise BodyTooLargeError
        return message

    return bounded
