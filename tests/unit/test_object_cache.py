"""What a run keeps of the small objects of its checkpoint, and when it forgets it."""

from __future__ import annotations

import pyarrow as pa

from transforms.support.storage.remote import object_cache
from transforms.support.storage.remote.object_cache import OBJECT_BYTES, ObjectCache, Rules, cache_of, caching

ROOT = "s3://bucket/checkpoint/"
RULES = Rules(
    ROOT,
    fixed=lambda uri: "/parts/" in uri,
    own=lambda uri: "/runs/" in uri,
    listed=lambda prefix: "/snapshots/" in prefix,
)
PART, RUN = f"{ROOT}parts/a.parquet", f"{ROOT}runs/one/a.parquet"


def test_what_never_changes_is_kept_once_it_was_read() -> None:
    cache = ObjectCache(RULES)
    cache.keep_written(PART, b"unread")
    assert cache.content(PART) is None  # a part is read back from the store at least once
    cache.keep_read(PART, b"part", cache.changes)
    cache.keep_read(RUN, b"another worker may write it", cache.changes)
    assert (cache.content(PART), cache.content(RUN)) == (b"part", None)
    cache.keep_written(RUN, b"mine")
    assert cache.content(RUN) == b"mine"
    cache.forget(RUN)
    assert cache.content(RUN) is None


def test_what_was_read_while_something_was_written_is_not_kept() -> None:
    cache = ObjectCache(RULES)
    since = cache.changes
    cache.forget(PART)  # deleted by another thread meanwhile
    cache.keep_read(PART, b"part", since)
    cache.keep_listing(f"{ROOT}snapshots/", pa.table({"uri": ["a"]}), since)
    assert cache.content(PART) is None
    assert cache.listing(f"{ROOT}snapshots/") is None


def test_a_listing_is_kept_until_something_below_it_changes() -> None:
    cache, prefix = ObjectCache(RULES), f"{ROOT}snapshots/"
    table = pa.table({"uri": ["a"]})
    cache.keep_listing(prefix, table, cache.changes)
    cache.keep_listing(f"{ROOT}parts/", table, cache.changes)
    assert cache.listing(prefix) is table
    assert cache.listing(f"{ROOT}parts/") is None  # workers write there
    cache.forget(PART)
    assert cache.listing(prefix) is table
    cache.forget(f"{prefix}000002.parquet")
    assert cache.listing(prefix) is None


def test_memory_is_bounded() -> None:
    cache = ObjectCache(RULES)
    cache.keep_read(f"{ROOT}parts/large", bytes(OBJECT_BYTES + 1), 0)
    assert cache.content(f"{ROOT}parts/large") is None
    count = object_cache.TOTAL_BYTES // OBJECT_BYTES
    for number in range(count + 2):
        cache.keep_read(f"{ROOT}parts/{number}", bytes(OBJECT_BYTES), 0)
        assert cache.content(f"{ROOT}parts/0") is not None or number >= count
    kept = [number for number in range(count + 2) if cache.content(f"{ROOT}parts/{number}") is not None]
    assert len(kept) == count
    assert kept[-1] == count + 1


def test_a_cache_ends_with_its_block_and_is_for_one_checkpoint() -> None:
    with caching(RULES) as cache:
        assert cache_of(PART) is cache
        assert cache_of("s3://bucket/checkpoint-2/parts/a.parquet") is None
    assert cache_of(PART) is None
