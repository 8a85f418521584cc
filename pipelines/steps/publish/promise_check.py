"""Whether a served collection still keeps the recall that `collection.index: auto` promised."""

from __future__ import annotations

from pipelines.run.session import Phase
from pipelines.steps.collection.served import open_for_search
from pipelines.steps.publish.collection_run import CollectionRun
from pipelines.steps.publish.promised_recall import PromisedRecall
from schemas.config import Config
from schemas.errors import GateError
from transforms.support.extras import need


def check_promise_package(config: Config) -> None:
    """Raises MissingExtraError where a promise can't be measured, before anything is compared."""
    if config.collection.promise is not None:
        need("explore", "vecbeam verify of collection.index: auto", "faiss")


def check_promise(given: CollectionRun) -> None:
    """Measures recall@10 over all rows and under each filter of the promise, by many queries; nothing without one.

    Rows that came and went since the index was chosen may have made it worse, and so may a graph that a server built
    again. It fails where the promise is broken with 95% certainty; what is lower by chance alone is a warning.

    Raises:
        GateError: if the promise is broken.
    """
    promise = given.spec.promise
    if promise is None:
        return
    promised = promise["recall_at_10"]
    with Phase(given.session, "verify"):
        open_for_search(given.connection, given.spec.name)
        recalls = PromisedRecall(given.session, given.checkpoint, given.snapshot, given.connection, given.spec)
        found = recalls.held(given.spec)

    def words(filter: str) -> str:
        return f"{found[filter].unseen:.4f}{f' under {filter}' if filter else ''}"

    report = given.session.report
    report.verify.promise = f"{', '.join(map(words, found))}; promised {promised}"
    low = [filter for filter, one in found.items() if one.unseen < promised]
    broken = [filter for filter in low if found[filter].most < promised]
    if broken:
        raise GateError(
            f"{given.spec.name} did not pass: recall@10 of queries that are not rows is "
            f"{', '.join(map(words, broken))}, and collection.index promises {promised}",
            "vecbeam load --rebuild chooses an index for the rows as they are now; the collection is served until then",
        )
    if low:
        report.warnings.append(
            f"recall@10 of queries that are not rows is {', '.join(map(words, low))}, and collection.index promises "
            f"{promised}; chance could explain the difference"
        )
