"""Whether Milvus answers, and can do what the configuration needs of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipelines.steps.collection.server import check_server, check_vectors
from pipelines.steps.diagnosis.check import Check, fail, ok, skipped, warn
from schemas.config import Config
from schemas.errors import CollectionError, MissingExtraError, VecbeamError
from schemas.milvus.capabilities import CAPABILITIES, Evidence, Server, capabilities_of
from transforms import milvus
from transforms.encoders import hub
from transforms.encoders.models import Models
from transforms.support.extras import need

ANSWER_S = 5.0


def check_milvus(config: Config, *, offline: bool) -> Iterator[Check]:
    """Connects, and compares the table of capabilities with the index, the metric, the load and the vectors."""
    settings = config.collection
    if offline and not settings.is_lite:
        yield skipped("milvus", f"{settings.uri} is not on this machine, and --offline is set")
        return
    quick = settings.model_copy(update={"timeout_s": min(ANSWER_S, settings.timeout_s), "retry_s": 0.0})
    config = config.model_copy(update={"collection": quick})
    try:
        if settings.is_lite and not Path(settings.uri).exists():  # opening it would create it
            need("lite", settings.uri, "milvus_lite")
            yield ok("milvus", f"Milvus Lite; the first run creates {settings.uri}")
        else:
            with milvus.connected(quick, create=False) as connection:
                server = connection.server
            # Another process can open the file again.
            milvus.release(quick, unused=True)
            yield _version(server, settings.uri)
    except (CollectionError, MissingExtraError) as error:
        yield fail("milvus", error.message, error.remedy)
        return
    if offline and any(one.is_remote for one in config.vectors.values()):
        yield skipped("milvus capabilities", "an encoder is a server, and --offline is set")
        return
    try:
        check_server(quick)
        with hub.offline():
            # Without the fitted models that there are: those would be listed in the checkpoint's store.
            check_vectors(config, Models.of(config, refit=True).layout)
    except CollectionError as error:
        yield fail("milvus capabilities", error.message, error.remedy)
    except VecbeamError:
        yield skipped("milvus capabilities", "the vectors are not known without the model")
    else:
        index = settings.index.type
        yield ok("milvus capabilities", f"index {index}, metric {settings.metric}, load by {settings.load}")


def _version(server: Server, uri: str) -> Check:
    oldest, newest = min(CAPABILITIES[server.kind]), max(CAPABILITIES[server.kind])
    number, found = server.number, f"{server} at {uri}"
    if number is not None and number < oldest:
        return warn("milvus", f"{found} is older than {_dotted(oldest)}, the oldest one that was tested", "update it")
    if number is None or number > newest or capabilities_of(server).evidence is not Evidence.PROBED:
        return warn(
            "milvus",
            f"{found} was not tested with vecbeam: what it can do is known from release notes",
            "run vecbeam verify after the first run",
        )
    return ok("milvus", found)


def _dotted(number: tuple[int, int]) -> str:
    return ".".join(map(str, number))
