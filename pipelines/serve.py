"""`vecbeam serve CONFIG`: a page on this machine to search a collection and to look at it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

from pipelines.web.site import Site
from schemas.config import Config
from schemas.config.loader import load_config
from schemas.errors import ConfigurationError
from transforms.support import stop
from transforms.support.extras import need

TOKEN = "VECBEAM_SERVE_TOKEN"
"""The variable with the token that each request needs."""
LOOPBACK = "127.0.0.1"
PORT = 8765
MODULES = ("starlette", "uvicorn", "jinja2", "python_multipart", "prometheus_client")


def serve(
    config: Config,
    *,
    port: int = PORT,
    host: str = LOOPBACK,
    other: Path | None = None,
    ready: Callable[[str], None] = print,
    token: str | None = None,
    ended: threading.Event | None = None,
) -> None:
    """Serves the page until the process is stopped, or `ended` is set.

    Args:
        port: 0 for one that is free.
        host: the address to listen on. Any but this machine's own needs a token.
        other: another configuration, whose collection the page compares with.
        ready: called with the address of the page once it answers.
        token: that each request needs; by default the value of `VECBEAM_SERVE_TOKEN`.
        ended: another thread sets it to end the server, which then returns.

    Raises:
        ConfigurationError: if the port is in use, the address is not this machine's, or the token is missing.
        CollectionError: if nothing is published, or Milvus does not answer.
        MissingExtraError: if the extra `serve` is not installed.
        InterruptedRunError: when Ctrl-C or SIGTERM stops it.
    """
    need("serve", "vecbeam serve", *MODULES)
    secret = os.environ.get(TOKEN, "") if token is None else token
    is_local = _is_loopback(host)
    if not is_local and not secret:
        raise ConfigurationError(
            f"--host {host}: other machines could read the collection, and {TOKEN} is not set",
            f"export {TOKEN}=... with a long random text, or leave --host out",
        )
    with _listen(host, port) as listener, stop.saying("the server was stopped"):
        site = Site(config, load_config(other) if other is not None else None)
        try:
            _warm_up(site)
            address = f"http://{_shown_host(host)}:{listener.getsockname()[1]}/"
            _run(site, listener, is_local=is_local, token=secret, address=address, ready=ready, ended=ended)
        except KeyboardInterrupt:
            raise stop.interruption() from None
        finally:
            site.close()


def _run(
    site: Site,
    listener: socket.socket,
    *,
    is_local: bool,
    token: str,
    address: str,
    ready: Callable[[str], None],
    ended: threading.Event | None,
) -> None:
    import uvicorn

    from pipelines.web.application import application

    hosts = ("127.0.0.1", "localhost", "[::1]") if is_local else ()
    settings = uvicorn.Config(
        application(site, hosts, token),
        log_level="critical",
        lifespan="off",
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=5,
        limit_concurrency=200,
    )

    class PageServer(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready(address)

        async def on_tick(self, counter: int) -> bool:
            return await super().on_tick(counter) or (ended is not None and ended.is_set())

    PageServer(settings).run([listener])


def _warm_up(site: Site) -> None:
    """Opens model and collection, so that the first search of a person does not wait for them."""
    site.searcher.rows(["-"], ["item_id"])
    if site.other_searcher is not None:
        site.other_searcher.rows(["-"], ["item_id"])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(
            f"can't listen on {host}:{port}: {reason.lower()}", "choose another --port; 0 takes one that is free"
        ) from error
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        if host == "localhost":
            return True
        raise ConfigurationError(f"--host: {host!r} is not an IP address", "for example --host 0.0.0.0") from None


def _shown_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
