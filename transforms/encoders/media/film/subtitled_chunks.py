"""Segments of films with their subtitles as a column."""

from __future__ import annotations

import logging

import pyarrow as pa
import pyarrow.compute as pc

from schemas import locator
from schemas.config import Config, MetadataField
from schemas.languages import language_code
from schemas.layout import LOCATOR
from schemas.modality import Modality
from schemas.rejects import Reject, rejects_table
from transforms.chunk.base import Chunked, Chunker
from transforms.encoders.media.content import RefusedError, contents_of, opened
from transforms.support.subtitles import Subtitles, SubtitlesError, subtitles

log = logging.getLogger("vecbeam")
_MOST_NAMED = 5


def with_subtitles(chunker: Chunker, config: Config, modality: Modality) -> Chunker:
    """The chunker, which also fills the columns that have the subtitles, where the corpus has such columns."""
    columns = config.corpus.subtitle_columns
    return SubtitledChunker(chunker, columns) if columns and modality is Modality.VIDEO else chunker


class SubtitledChunker:
    """Fills columns of the chunks of films with the subtitles that are shown in their seconds.

    A segment without any has null there. A film whose subtitles can't be read is a reject.

    Args:
        chunker: makes the segments.
        columns: of `corpus.metadata`, with the language and the most bytes of each.
    """

    def __init__(self, chunker: Chunker, columns: dict[str, MetadataField]) -> None:
        self._chunker = chunker
        self._columns = columns
        self._languages = {name: language_code(one.language or "") for name, one in columns.items()}
        self._named = 0

    def chunk(self, items: pa.Table) -> Chunked:
        """See `Chunker.chunk`."""
        chunks, rejects = self._chunker.chunk(items)
        addresses = locator.addresses(chunks.column("@uri"), chunks.column(LOCATOR))
        rows = chunks.select(["item_id", "@uri", "@place", "start", "end"]).to_pylist()
        films = dict(zip(addresses, rows, strict=True))
        shown: dict[str, dict[str, Subtitles]] = {}
        refused: dict[str, Reject] = {}
        for address, data in contents_of(films):
            row = films[address]
            try:
                shown[address] = self._of_film(address, data)
            except RefusedError as error:
                refused[row["item_id"]] = _reject(row, error.error, error.reason)
        for name, limit in self._columns.items():
            language = self._languages[name]
            texts = [
                shown[address][language].between(row["start"], row["end"]) or None if address in shown else None
                for address, row in zip(addresses, rows, strict=True)
            ]
            for text, row in zip(texts, rows, strict=True):
                if text is not None and (size := len(text.encode())) > limit.max_bytes:
                    reason = (
                        f"The subtitles from {row['start']:g} s to {row['end']:g} s have {size:,} bytes, more than "
                        f"max_bytes of their column, {limit.max_bytes:,}: raise it (to 65,535 at most), or lower "
                        "chunk.seconds"
                    )
                    refused.setdefault(row["item_id"], _reject(row, "TextTooLong", reason))
            at = chunks.schema.get_field_index(name)
            chunks = chunks.set_column(at, chunks.schema.field(at), pa.array(texts, pa.string()))
        gone = pa.array(sorted(refused), pa.string())
        kept = chunks.filter(pc.invert(pc.is_in(chunks.column("item_id"), gone)))
        return Chunked(kept, pa.concat_tables([rejects, rejects_table(refused.values())]))

    def _of_film(self, address: str, data: bytes | None) -> dict[str, Subtitles]:
        languages = sorted({*self._languages.values()})
        try:
            with opened(address, data) as stream:
                found = dict(zip(languages, subtitles(stream, languages), strict=True))
        except SubtitlesError as error:
            raise RefusedError(error.error, error.reason) from error
        left_out = dict.fromkeys(one.left_out for one in found.values() if one.left_out)
        if left_out and self._named < _MOST_NAMED:
            self._named += 1
            more = "; further films are not named" if self._named == _MOST_NAMED else ""
            log.warning("%s: %s, and left out%s", locator.shown(address), "; ".join(left_out), more)
        return found


def _reject(row: dict[str, str], error: str, reason: str) -> Reject:
    return Reject(row["item_id"], row["@uri"], row["@place"], "chunk", error, reason)
