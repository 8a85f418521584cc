"""PDF files to pages: each page of an item is a row, and is drawn where it is embedded."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from schemas.config import Config
from schemas.errors import CorpusError
from schemas.identity import content_hash, row_id
from schemas.layout import LOCATOR, chunk_schema, item_facts
from schemas.locator import PdfPage, as_text, shown_column
from schemas.modality import Modality
from schemas.rejects import Reject, rejects_table
from transforms.chunk.base import Chunked
from transforms.chunk.whole import id_too_long
from transforms.support.pdf_pages import PdfError, page_count
from transforms.support.storage import filesystem

MAX_PDF_BYTES = 512 << 20


class PagesChunker:
    """Makes one chunk of each page; `start` is its number from 0 on, `end` the next one's.

    Args:
        config: of which `corpus.pages`, `corpus.metadata` and `collection.id_max_bytes` count.
    """

    def __init__(self, config: Config) -> None:
        assert config.corpus.pages is not None
        self._dpi = config.corpus.pages.dpi
        self._metadata = config.corpus.column_types
        self._id_max_bytes = config.collection.id_max_bytes
        self._schema = chunk_schema(self._metadata, Modality.IMAGE)

    def chunk(self, items: pa.Table) -> Chunked:
        """See `Chunker.chunk`."""
        counts: list[int] = []
        rejects: list[Reject] = []
        columns = [items.column(name).to_pylist() for name in ("item_id", "@uri", "@place")]
        for item_id, uri, place in zip(*columns, strict=True):
            try:
                pages = page_count(_content(uri))
            except PdfError as error:
                rejects.append(Reject(item_id, uri, place, "chunk", error.error, error.reason))
                pages = 0
            length = len(row_id(item_id, max(0, pages - 1)).encode())
            if pages and length > self._id_max_bytes:
                rejects.append(id_too_long(item_id, uri, place, length, self._id_max_bytes))
                pages = 0
            counts.append(pages)
        return Chunked(self._rows(items, counts), rejects_table(rejects))

    def _rows(self, items: pa.Table, counts: Sequence[int]) -> pa.Table:
        numbers = np.concatenate([np.arange(0), *(np.arange(count) for count in counts)]).astype(np.int64)
        items = items.take(pa.array(np.repeat(np.arange(len(counts)), counts)))
        places = pa.chunked_array(
            [pa.array([as_text(PdfPage(page, self._dpi)) for page in numbers.tolist()], pa.string())]
        )
        ids = items.column("item_id").to_pylist()
        contents = items.column("@content").to_pylist()
        columns = {
            "id": pa.array(map(row_id, ids, numbers.tolist()), pa.string()),
            "item_id": items.column("item_id"),
            "chunk": pa.array(numbers),
            "uri": shown_column(items.column("@uri"), places),
            "start": pa.array(numbers),
            "end": pa.array(numbers + 1),
            # How a page is drawn belongs to its content: at another dpi it is another image.
            "content_hash": pa.array(
                [content_hash(json.dumps([*at, self._dpi])) for at in zip(contents, numbers.tolist(), strict=True)],
                pa.string(),
            ),
            LOCATOR: places,
            **{name: items.column(name) for name in (*self._metadata, *item_facts().names)},
        }
        return pa.table([columns[name] for name in self._schema.names], schema=self._schema)


def _content(uri: str) -> bytes:
    """All bytes of a file.

    Raises:
        PdfError: where it does not exist or may not be read, or is too large.
        CorpusError: any other failure of the storage.
    """
    try:
        with filesystem.open_binary(uri) as stream:
            data = stream.read(MAX_PDF_BYTES + 1)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise PdfError("UnreadableMedia", f"The file can't be opened: {error.strerror or error}") from error
    except Exception as error:
        raise CorpusError(
            f"can't read {filesystem.as_text(uri)}: {error}",
            "run the same command again once the storage answers; nothing was lost",
        ) from error
    if len(data) > MAX_PDF_BYTES:
        raise PdfError("MediaTooLarge", f"The file has more than {MAX_PDF_BYTES >> 20} MiB")
    return data
