"""Objects in S3, GCS and Azure, through obstore: read, write on a condition, list, delete.

Every error is an OSError: `FileNotFoundError` for a missing object, `ConditionError` for a
condition that does not hold, and else `AnswerError` or a `ConnectionError`. `transforms.support.retry.passes`
says which of these are transient; they are retried and counted here, until Ctrl-C.
"""

from __future__ import annotations

import contextlib
import io
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from transforms.support import stop
from transforms.support.retry import passes, retrying
from transforms.support.storage.remote.address import AZURE, Address, is_plain, parse
from transforms.support.storage.remote.answer import (
    AnswerError,
    OddKeyError,
    short,
    translated,
)
from transforms.support.storage.remote.bucket_client import client_of

OBJECTS = pa.schema(
    [("uri", pa.large_binary()), ("size", pa.int64()), ("modified", pa.float64()), ("version", pa.string())]
)
LISTED_AT_ONCE = 1000
"""Objects per page: the most that S3 and GCS return."""
DELETED_AT_ONCE = 1000
REQUESTS_AT_ONCE = 16
FIRST_CONTACT_S = 5.0
"""Seconds of retries for a store that has never answered: its endpoint may be wrong."""
PATIENCE_S = 60.0
AZURE_IN_ONE_BYTES = 64 << 20
"""Azure takes 5,000 MiB in one request; the time limit of a request takes these on a line of 5 Mbit/s."""
_UNORDERED = "--x-s3"
"""Suffix of the names of S3 Express buckets, whose listings have no order."""


class ObjectFacts(NamedTuple):
    """A store's facts of an object; `e_tag` and `version` (a generation, on GCS) in its own form, or ""."""

    size: int
    modified: float
    e_tag: str
    version: str


def head(uri: str) -> ObjectFacts:
    """The facts of an object.

    Raises:
        FileNotFoundError: if it does not exist.
    """
    address, store = _at(uri)
    return _facts(_called(address, "look for", store.head, address.key))


def read(uri: str, start: int = 0, length: int | None = None, e_tag: str = "") -> tuple[bytes, ObjectFacts]:
    """Bytes of an object, and its facts.

    Args:
        e_tag: refuses another version of the object.

    Raises:
        FileNotFoundError: if it does not exist.
        ConditionError: if it is another version.
    """
    address, store = _at(uri)
    options: dict[str, Any] = {"if_match": e_tag} if e_tag else {}
    if length is not None:
        options["range"] = (start, start + length)

    def get() -> tuple[bytes, ObjectFacts]:
        found = store.get(address.key, options=options)
        return bytes(found.bytes()), _facts(found.meta)

    return _called(address, "read", get)  # type: ignore[no-any-return]


def write(uri: str, data: bytes | BinaryIO) -> None:
    """Writes an object whole; replaces an existing one.

    Large ones go in several requests, which S3 and GCS keep apart for each upload. Azure has one list of uncommitted
    blocks for each blob: of two uploads of one blob at the same time, the first to end discards the other's blocks. So
    there all but the largest go in one request.
    """
    address, store = _at(uri)
    in_one = address.scheme in AZURE and (isinstance(data, bytes) or _size(data) <= AZURE_IN_ONE_BYTES)

    def put() -> None:
        if not isinstance(data, bytes):
            data.seek(0)
        store.put(address.key, data, **({"use_multipart": False} if in_one else {}))

    _called(address, "write", put)


def _size(data: BinaryIO) -> int:
    return data.seek(0, io.SEEK_END)


def write_if(uri: str, data: bytes, before: ObjectFacts | None) -> ObjectFacts:
    """Writes an object if it has not changed, in one step of the store.

    After a lost answer the retry fails although the first request wrote: the caller must check.

    Args:
        before: the object that this one replaces; None if there must be none.

    Raises:
        ConditionError: if it has changed, or if another request wrote it at the same moment.
        UnconditionalError: if the store can't do it.
    """
    address, store = _at(uri)
    mode: Any = "create"
    if before is not None:
        mode = {"e_tag": before.e_tag, **({"version": before.version} if before.version else {})}
    result = _called(address, "write", store.put, address.key, data, mode=mode)
    return ObjectFacts(len(data), 0.0, result["e_tag"] or "", result["version"] or "")


def delete(uris: list[str]) -> None:
    """Deletes objects of one bucket; ignores missing ones."""
    address, store = _at(uris[0])
    keys = [parse(uri).key for uri in uris]
    if address.scheme == "s3":
        for start in range(0, len(keys), DELETED_AT_ONCE):
            _called(address, "delete", store.delete, keys[start : start + DELETED_AT_ONCE])
        return

    def delete_one(key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            _called(address, "delete", store.delete, key)

    if len(keys) == 1:
        delete_one(keys[0])
        return
    with ThreadPoolExecutor(REQUESTS_AT_ONCE, thread_name_prefix="delete") as pool:
        for _ in pool.map(delete_one, keys):
            stop.check()


def listed(prefix: str, limit: int | None = None) -> Iterator[pa.Table]:
    """The objects whose URIs begin so, tables of `OBJECTS`, in the order of the store; some at least, or none.

    A listing that fails continues from the last key. A slash at the end of a key is lost: see
    `transforms.support.storage.filesystem`.

    Args:
        limit: at least so many, if more exist.

    Raises:
        OddKeyError: if obstore does not support a key.
        OSError: if the listing fails, or there is no such bucket.
    """
    address = parse(prefix)
    folder, slash, begin = address.key.rpartition("/")
    ordered = not address.bucket.endswith(_UNORDERED)
    if not is_plain(folder or "a") or (begin and not is_plain(begin)):
        raise OddKeyError(prefix)
    if begin:
        try:
            found = head(prefix)
            yield _table([(prefix.encode(), found.size, found.modified, found.version or found.e_tag)])
        except FileNotFoundError:
            pass
    pages = _Pages(address, folder, address.key if begin and ordered else "")
    count = 0
    while (batch := _called(address, "list", pages.next)) is not None:
        paths = batch.column("path")
        mine = pc.starts_with(paths, folder + slash + begin)
        yield _objects(address, batch.filter(mine))
        count += pc.sum(mine).as_py() or 0
        last = paths[-1].as_py()
        if limit is not None and count >= limit:
            return
        if ordered and begin and last > address.key and not last.startswith(address.key):
            return


class _Pages:
    """The pages of a listing. After a failure it continues after the last key that it returned."""

    def __init__(self, address: Address, folder: str, after: str) -> None:
        self._address = address
        self._folder = folder
        self._after = after
        self._stream: Any = None
        self._resumable = not address.bucket.endswith(_UNORDERED)
        self._given = 0

    def next(self) -> pa.RecordBatch | None:
        if self._stream is None:
            self._stream = client_of(self._address).store.list(
                self._folder or None, offset=self._after or None, chunk_size=LISTED_AT_ONCE, return_arrow=True
            )
        try:
            page = next(self._stream, None)
        except Exception as error:
            self._stream = None
            if self._given and not self._resumable:
                raise AnswerError(f"a listing without order broke off: {short(error)}") from error
            raise
        if page is None:
            return None
        batch = pa.record_batch(page)
        if batch.num_rows == 0:
            return self.next()
        self._given += batch.num_rows
        self._after = max(self._after, pc.max(batch.column("path")).as_py())
        return batch


def _table(rows: list[tuple[bytes, int, float, str]]) -> pa.Table:
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema=OBJECTS)


def _objects(address: Address, batch: pa.RecordBatch) -> pa.Table:
    uris = pc.binary_join_element_wise(pa.scalar(address.root), batch.column("path").cast(pa.string()), "")
    micros = batch.column("last_modified").cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    whole = pc.divide(micros, 1_000_000)
    rest = pc.subtract(micros, pc.multiply(whole, 1_000_000))
    # Bit for bit as Beam has it: a snapshot may hold Beam's value.
    modified = pc.add(whole.cast(pa.float64()), pc.divide(rest.cast(pa.float64()), 1_000_000.0))
    tags = batch.column("e_tag").cast(pa.string())
    version = pc.coalesce(batch.column("version").cast(pa.string()), tags, pa.scalar(""))
    columns = [uris.cast(pa.large_binary()), batch.column("size").cast(pa.int64()), modified, version]
    return pa.table(columns, schema=OBJECTS)


def _at(uri: str) -> tuple[Address, Any]:
    address = parse(uri)
    return address, client_of(address).store


def _facts(meta: Any) -> ObjectFacts:
    return ObjectFacts(meta["size"], meta["last_modified"].timestamp(), meta["e_tag"] or "", meta["version"] or "")


def _called(address: Address, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls obstore, and retries while its errors are transient."""
    client = client_of(address)
    begun = time.monotonic()

    def once() -> Any:
        try:
            found = _interruptibly(lambda: function(*args, **kwargs))
        except Exception as error:
            ours = translated(error, address)
            client.has_answered = client.has_answered or not isinstance(ours, ConnectionError)
            raise ours from error
        client.has_answered = True
        return found

    def may_pass(error: BaseException) -> bool:
        return passes(error) and (client.has_answered or time.monotonic() - begun < FIRST_CONTACT_S)

    return retrying(f"{what} {address.root}{address.key}", PATIENCE_S, may_pass)(once)


def _interruptibly(function: Callable[[], Any]) -> Any:
    """Calls a function so that a signal's handler runs meanwhile: it waits outside Python."""
    if threading.current_thread() is not threading.main_thread():
        return function()
    ended: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def run() -> None:
        try:
            ended.put((True, function()))
        except BaseException as error:
            ended.put((False, error))

    threading.Thread(target=run, name="store", daemon=True).start()
    done, found = ended.get()
    if not done:
        raise found
    return found
