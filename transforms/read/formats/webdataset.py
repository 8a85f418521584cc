"""Tars of WebDataset and img2dataset: members whose names are equal up to the first dot are one sample.

A sample has one image, recording or film, which is the item, and fields: `.json`, `.txt` and `.cls` members. Nothing
is extracted: the item refers to its bytes in the tar by offset and length, and the step that embeds reads those.

A record of a sample has the field `__key__`, its name up to the dot; `__tar__`, the tar's name in the corpus; `json`
and the names of the other field members without the dot. The version of an item is a hash of its bytes, so that a
tar that is written again changes only the items whose bytes changed; of one over `HASHED_BYTES` it is the tar's
version with the place in it, as those bytes are not read here.

A compressed tar is unpacked as it is read, in its order. Places are those in the tar, not in the compressed file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from hashlib import blake2b
from typing import Any

from schemas.config import Corpus
from schemas.formats import WEBDATASET, format_of_suffix
from schemas.locator import Member, as_text
from transforms.read.batch import Batch, BatchBuilder
from transforms.read.formats.media import version_of
from transforms.read.formats.tar_members import DamagedTarError, TarMember, TarStream, members, tar_stream
from transforms.read.formats.tar_sample import KEY, TarSample, key_of
from transforms.read.item import ItemChecker
from transforms.read.listing.files import SourceFile
from transforms.read.open_file import OpenFile
from transforms.read.rejected_item import RejectedItemError
from transforms.read.stream import BLOCK_BYTES

HASHED_BYTES = 4 << 20
"""The longest member that is read for its hash: more is faster to pass over than to read, in an object store too."""


def read(opened: OpenFile, sink: BatchBuilder) -> Iterator[Batch]:
    """Reads the samples of a tar, in its order; a sample is the members of one key that follow one another.

    Rejects of one sample: `NoMedia`, `SeveralMedia`, `EmptyFile`, `DuplicateKey`, `LinkInTar`, `PathLeavesTar`,
    `SpecialInTar`, `InvalidJson`, `InvalidUtf8`, `WrongType`, `RecordTooLarge`, and what `ItemChecker` refuses. A tar
    that is cut is `DamagedFile`: it costs the sample in which it ends, and those after it.
    A decompression bomb is `TooLarge`, in the same way.
    """
    with closing(tar_stream(opened.raw, opened.file)) as tar:
        reader = _Reader(tar, opened.file, sink)
        damage: DamagedTarError | None = None
        try:
            for member in members(tar):
                yield from reader.add(member)
        except DamagedTarError as error:
            damage = error
        yield from reader.end(damage)


class _Reader:
    def __init__(self, raw: TarStream, file: SourceFile, sink: BatchBuilder) -> None:
        self._raw, self._file, self._sink = raw, file, sink
        self._check = ItemChecker(sink.corpus, file.shown)
        self._is_media = _media_test(sink.corpus)
        self._seen: set[bytes] = set()
        self._sample: TarSample | None = None
        self._parts: set[str] = set()  # of the sample before

    def add(self, member: TarMember) -> Iterator[Batch]:
        """Adds a member; yields the batch that the sample before it fills. A member without a key is passed over."""
        key, part = key_of(member.name)
        if not part and not member.error:
            return
        if self._sample is None or self._sample.key != key or part in self._sample.parts:
            yield from self._take()
            self._sample = TarSample(key)
        sample = self._sample
        sample.add(self._raw, part, member, self._is_media(part))

    def end(self, damage: DamagedTarError | None) -> Iterator[Batch]:
        """The last sample, and what is said of a damaged tar: one reject, with the sample that it ends in."""
        sample = self._sample
        if damage is None:
            yield from self._take()
            return
        cut, part = key_of(damage.name)
        # A sample that has not the parts of the one before has lost some.
        is_cut = sample is not None and (cut == sample.key or not sample.parts >= self._parts)
        key = sample.key if sample is not None and is_cut else cut if part else None
        if is_cut:
            self._sample = None
        yield from self._take()
        place = f"sample {key}" if key is not None else ""
        item_id = None if key is None or self._sink.corpus.id != KEY else key
        if self._sink.reject(item_id, place, damage.error, damage.reason):
            yield self._sink.take()

    def _take(self) -> Iterator[Batch]:
        sample, self._sample = self._sample, None
        if sample is None:
            return
        self._parts = sample.parts
        record = sample.record(self._file.name)
        place = f"sample {sample.key}"
        try:
            if sample.error is not None:
                raise sample.error
            item_id = self._check.item_id(record)
            metadata = self._check.metadata(record, item_id)
            self._refuse_known(sample.key)
            member = self._media(sample)
            version = self._version(member)
            content = version
            if self._check.has_text_inputs:
                content = self._check.inputs(record, item_id).with_media(version).as_text()
        except RejectedItemError as error:
            known = error.item_id or self._check.known_id(record)
            full = self._sink.reject(known, place, error.error, error.reason)
        else:
            locator = as_text(Member(member.offset, member.length, member.name))
            full = self._sink.add(item_id, place, content, metadata, locator)
        if full:
            yield self._sink.take()

    def _refuse_known(self, key: str) -> None:
        known = blake2b(key.encode(), digest_size=8).digest()
        if known in self._seen:
            raise RejectedItemError("DuplicateKey", f"Another sample of this tar has the key {key!r}")
        self._seen.add(known)

    def _media(self, sample: TarSample) -> TarMember:
        names = ", ".join(repr(one.name) for one in sample.media)
        wanted = self._sink.corpus.media or self._sink.corpus.modality_of(WEBDATASET).noun
        if not sample.media:
            parts = ", ".join(sorted(sample.parts))
            raise RejectedItemError("NoMedia", f"The sample has no member {wanted!r}; it has {parts}")
        if len(sample.media) > 1:
            raise RejectedItemError(
                "SeveralMedia", f"The sample has {names}; corpus.media names the ending of the one that is the item"
            )
        if not sample.media[0].length:
            raise RejectedItemError("EmptyFile", f"The member {names} has no bytes")
        return sample.media[0]

    def _version(self, member: TarMember) -> str:
        if member.length > HASHED_BYTES:
            return json.dumps([*version_of(self._file), member.offset, member.length])
        hasher = blake2b(digest_size=16)
        self._raw.seek(member.offset)
        left = member.length
        while left and (block := self._raw.read(min(left, BLOCK_BYTES))):
            hasher.update(block)
            left -= len(block)
        return f"blake2b {hasher.hexdigest()}"


def _media_test(corpus: Corpus) -> Any:
    """Tells whether a member is the item, by what follows the first dot of its name."""
    if corpus.media is not None:
        wanted = corpus.media.lower().removeprefix(".")
        return lambda part: part == wanted
    suffixes = format_of_suffix(corpus.modality_of(WEBDATASET))
    return lambda part: f".{part.rpartition('.')[2]}" in suffixes
