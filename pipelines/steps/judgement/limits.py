"""The limits of a run: what it may reject, drop and delete before anything that searchers see, or that counts, changes.

A run that goes over a limit is refused: the current snapshot and the served collection stay as they are. The parts that
it embedded stay too, so that a later run finds them.
"""

from __future__ import annotations

import math
from itertools import islice

from pipelines.run.session import Session
from pipelines.steps.corpus.changes import Changes
from pipelines.steps.judgement.standing import Standing
from schemas.config import Config
from schemas.errors import ConfigurationError, GateError, RejectsError, VecbeamError
from schemas.formats import holds_records
from schemas.records import Kind
from transforms.checkpoint import Snapshot
from transforms.embed.once_compared import FoundBounds
from transforms.read import CONTAINER_ERRORS, first_records
from transforms.read.formats.delimited import delimiter_hint
from transforms.read.item import MISSING, lookup
from transforms.read.rejected_item import shown_names

FIELD_ERRORS = frozenset({"MissingField", "WrongSchema"})
"""Rejects of records that have other fields than the configuration names."""
FILES_LOOKED_AT = 5
RECORDS_LOOKED_AT = 200


def excess(snapshot: Snapshot, config: Config) -> str:
    """Rejects or dropped tokens of a snapshot over the limits of `verify`, in words, or ""."""
    dropped = snapshot.total("tokens_dropped")
    tokens = snapshot.total("tokens") + dropped
    return over_limits(config, snapshot.errors(), snapshot.total("items_read"), dropped, tokens)


def over_limits(config: Config, errors: dict[str, int], read: int, dropped: int, tokens: int) -> str:
    """Rejects or dropped tokens over the limits of `verify`, in words, or "".

    Args:
        errors: rejects by error.
        read: items read, with the rejects.
        dropped: tokens over the encoder's limit, or milliseconds of sound.
        tokens: all of them, with the dropped ones.
    """
    limits = config.verify
    hidden = sorted(CONTAINER_ERRORS & set(errors))
    if hidden and limits.max_rejected < 1:
        return (
            f"files could not be read to their end ({', '.join(hidden)}), so it is not known how many items they hold"
        )
    # What `on_duplicate` left out was the user's choice.
    rejected = sum(count for error, count in errors.items() if error != "DuplicateId")
    if read and rejected / read > limits.max_rejected:
        return f"{rejected} of {read} items were rejected, verify.max_rejected allows {limits.max_rejected:.2%}"
    if tokens and dropped / tokens > limits.max_dropped_tokens:
        unit, per_unit = config.corpus.modality.unit, config.corpus.modality.per_unit
        cut = "cut" if config.corpus.modality.has_rows_of_several else "dropped"
        return (
            f"{dropped // per_unit} of {tokens // per_unit} {unit} were {cut}, "
            f"verify.max_dropped_tokens allows {limits.max_dropped_tokens:.2%}"
        )
    return ""


def check_rows_at_all(snapshot: Snapshot, standing: Standing) -> None:
    """Refuses an empty snapshot: no gate can tell whether an empty collection is right.

    Raises:
        GateError: if it holds no row.
    """
    if not snapshot.total("rows"):
        raise GateError(
            f"the snapshot {snapshot.name} has no rows; {standing}",
            "check corpus.paths, corpus.id and corpus.content, and run vecbeam sync",
        )


def check_fields(changes: Changes, config: Config) -> None:
    """Refuses a configuration that names a field which no record has.

    Raises:
        ConfigurationError: with the key, the field, and the fields that the records have.
    """
    errors = changes.findings.errors
    rejected = sum(errors.values())
    kept = changes.source.any_kept
    if kept or not rejected or rejected < changes.surveyed or not set(errors) <= FIELD_ERRORS:
        return
    files = islice((file for file in changes.source.changed if holds_records(file.format)), FILES_LOOKED_AT)
    records = [record for file in files for record in first_records(file, RECORDS_LOOKED_AT)]
    names = list(dict.fromkeys(name for record in records for name in record))
    corpus = config.corpus
    wanted = [
        ("corpus.media" if field == corpus.media else "corpus.content", field) for field in corpus.embedded_fields
    ]
    wanted += [("corpus.id", field) for field in ([corpus.id] if isinstance(corpus.id, str) else corpus.id.hash)]
    for key, field in wanted:
        if records and all(lookup(record, field) is MISSING for record in records):
            raise ConfigurationError(
                f"{key}: no record has {field!r}; they have {shown_names(names)}{delimiter_hint(names)}",
                f"name one of these in {key}",
            )


def check_deletions(changes: Changes, config: Config, standing: Standing, *, allowed: bool) -> None:
    """Refuses to delete more of the current snapshot, or of what is served, than `corpus.max_deleted` allows.

    Args:
        allowed: whether --allow-deletes was given.

    Raises:
        GateError: with what would be deleted, and why it is missing.
    """
    if allowed:
        return
    most = config.corpus.max_deleted
    if changes.base is not None and changes.deleted:
        before = changes.base.total("items")
        if changes.deleted > most * before:
            raise _too_many(changes.deleted, before, "", _left_out(changes), most, standing)
    if changes.surveyed or changes.base is not None:
        after = sum(changes.count(kind) for kind in Kind)
    else:
        after = len(changes.source.changed)
    check_shrinking(after, standing, most, errors=_left_out(changes))


def deletion_bounds(base: Snapshot | None, config: Config, standing: Standing, *, allowed: bool) -> FoundBounds:
    """What a comparison may find so that `check_deletions` will not refuse it, for the job that makes it.

    Args:
        base: the snapshot that the corpus is compared with.
        allowed: whether --allow-deletes was given.
    """
    if allowed:
        return FoundBounds()
    most = config.corpus.max_deleted
    deleted = math.inf if base is None else most * base.total("items")
    return FoundBounds(deleted, 0.0 if standing.items is None else standing.items - most * standing.items)


def _left_out(changes: Changes) -> dict[str, int]:
    duplicates = changes.findings.duplicates.num_rows
    return {**changes.findings.errors, **({"DuplicateId": duplicates} if duplicates else {})}


def check_shrinking(
    items: int, standing: Standing, most: float, *, rows: int | None = None, errors: dict[str, int] | None = None
) -> None:
    """Refuses a corpus with fewer items than are served, by more than `corpus.max_deleted` allows.

    Args:
        items: as many as there would be.
        rows: as many as there would be, if that is known: compared where the checkpoint can't tell what is served.
        errors: rejects of the run, by error.

    Raises:
        GateError: with both numbers.
    """
    before, after, kind = standing.items, items, "items"
    if before is None and rows is not None:
        before, after, kind = standing.rows, rows, "rows"
    if before is not None and before - after > most * before:
        served = f" of {standing.collection}"
        raise _too_many(before - after, before, served, errors or {}, most, standing, kind=kind)


def _too_many(
    deleted: int,
    before: int,
    where: str,
    errors: dict[str, int],
    most: float,
    standing: Standing,
    *,
    kind: str = "items",
) -> GateError:
    gone = "would be served no longer" if where else "are no longer in the corpus"
    what = f"{deleted} of {before} {kind}{where} {gone}, corpus.max_deleted allows {most:.0%}"
    if errors:
        # A deletion on request would delete items that exist and only can't be read.
        return GateError(
            f"{what}; {sum(errors.values())} records were rejected ({named(errors)}), and may be these items; "
            f"{standing}",
            "fix those records, or corpus.id and corpus.content, and run the same command again",
        )
    check = "check corpus.paths and that every bucket exists"
    if deleted == before:
        return GateError(f"{what}; {standing}", f"{check}; an empty collection is never published")
    return GateError(
        f"{what}; {standing}",
        f"{check}; if those items are to be deleted, run it again with --allow-deletes: it deletes all {deleted}",
    )


def check_draft(
    session: Session, changes: Changes, draft: Snapshot, standing: Standing, *, allow_deletes: bool
) -> None:
    """Refuses a draft over the limits, and keeps it next to the snapshots, so that its parts are found again.

    If nothing is served and no snapshot within the limits exists, a draft with rejects is a beginning: it becomes
    the first snapshot, and the run that publishes it ends with exit code 4.

    Raises:
        RejectsError: if no item was embedded, or more was rejected or dropped than allowed.
        GateError: if more items are missing than allowed.
    """
    try:
        _check_draft(session, changes, draft, standing, allow_deletes=allow_deletes)
    except VecbeamError as error:
        changes.source.checkpoint.write_refused(draft, error.message)
        raise


def _check_draft(
    session: Session, changes: Changes, draft: Snapshot, standing: Standing, *, allow_deletes: bool
) -> None:
    config, errors = session.config, draft.errors()
    if not draft.total("rows"):
        if not errors:
            check_rows_at_all(draft, standing)
        rejected = session.report.rejected
        first = f"; the first: {rejected[0]}" if rejected else ""
        raise RejectsError(
            f"no item could be embedded: {sum(errors.values())} rejects ({named(errors)}){first}; {standing}",
            "fix the corpus, or corpus.id and corpus.content; vecbeam report --rejects names the rejects",
        )
    over = excess(draft, config)
    if over and (standing.collection or (changes.base is not None and not excess(changes.base, config))):
        raise RejectsError(f"{over}; {standing}", remedy(over, lossless=costs_nothing(changes, standing)))
    if not allow_deletes:
        check_shrinking(
            draft.total("items"), standing, config.corpus.max_deleted, rows=draft.total("rows"), errors=errors
        )


def costs_nothing(changes: Changes, standing: Standing) -> bool:
    """Whether no rejected record can be an item that is served.

    That is known only against the snapshot that is served, and only if none of its parts is lost: it is not known which
    items those held.
    """
    if not standing.collection:
        return True
    base = changes.base
    return base is not None and base.id == standing.snapshot and not changes.deleted and not changes.lost


def remedy(over: str, *, lossless: bool = True) -> str:
    """The remedy for an excess.

    Args:
        lossless: whether no earlier item is missing, so that a higher limit would delete nothing.
    """
    if "max_dropped_tokens" in over:
        return (
            "turn chunking on, or lower the length of chunks (for word vectors, name a file that has these words), or "
            f"raise verify.max_dropped_tokens to leave those {'seconds' if ' seconds ' in over else 'tokens'} out"
        )
    fix = "vecbeam report --rejects shows the reasons; fix the corpus and run the same command again"
    if not lossless:
        return f"{fix}; a higher verify.max_rejected can delete items that are served now"
    return f"{fix}, or raise verify.max_rejected to continue without the rejected items"


def check_known(snapshot: Snapshot, standing: Standing) -> None:
    """Refuses a snapshot with fewer rows than are served, where the checkpoint lost the one that is served.

    Without that one, and without the corpus, it is not known whether the rows should be deleted.

    Raises:
        GateError: with both numbers.
    """
    rows = snapshot.total("rows")
    if standing.items is None and rows < standing.rows:
        raise GateError(
            f"{standing.collection} serves {standing.rows} rows of a snapshot that the checkpoint does not have, the "
            f"current snapshot {snapshot.name} has {rows}; {standing}",
            "run vecbeam sync: it reads the corpus, and deletes only what is no longer there",
        )


def check_unexpected(rows: int, before: int, collection: str, most: float, *, allowed: bool) -> None:
    """Refuses to delete more rows that the checkpoint does not have than `corpus.max_deleted` allows.

    Args:
        rows: of the collection that its snapshot does not have.
        before: rows of the collection.
        allowed: whether --allow-deletes was given.

    Raises:
        GateError: with both numbers; nothing was written then.
    """
    if not allowed and rows > most * before:
        raise GateError(
            f"{rows} of {before} rows of {collection} are not in its snapshot, corpus.max_deleted allows to delete "
            f"{most:.0%}; the collection {collection} stays as it is",
            "vecbeam sync compares with the corpus as it is now; if these rows are to go, --allow-deletes deletes "
            f"all {rows}",
        )


def named(errors: dict[str, int]) -> str:
    """Rejects by error, in words: "3 EmptyText, 1 WrongType"."""
    return ", ".join(f"{count} {error}" for error, count in errors.items()) or "none"
