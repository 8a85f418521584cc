"""Items to chunks: spans of text of at most so many tokens of the encoder's own tokenizer.

A text within the limit is one chunk, as it is. A longer one is split at paragraph and sentence boundaries (Markdown at
its headings and blocks) by semantic-text-splitter. Nothing is dropped, unless the configuration turns chunking off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pyarrow as pa

from schemas.config import Config, EncoderConfig
from schemas.errors import ConfigurationError
from schemas.formats import COMPRESSED
from schemas.identity import content_hash, row_id
from schemas.layout import TOKEN_IDS, chunk_schema, item_facts
from schemas.milvus import VARCHAR_MAX_BYTES
from schemas.rejects import Reject, rejects_table
from transforms.chunk.base import Chunked
from transforms.chunk.whole import id_too_long

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MARKDOWN = (".md", ".markdown")
LONGEST_LINE = 65_536
"""Longest line, in characters, with which the splitter gets a text whole."""

# One call of the tokenizer holds the encodings of so many characters; more would only cost memory.
_TOKENIZED_CHARACTERS = 4 << 20


class Tokenizing(Protocol):
    """How a text model reads a text."""

    @property
    def config(self) -> EncoderConfig: ...

    @property
    def max_tokens(self) -> int:
        """Length limit, special tokens included."""
        ...

    @property
    def prompt(self) -> str:
        """Prefix of each text of the corpus."""
        ...

    def tokenizer(self) -> Tokenizer | CountedTokens:
        """The model's own tokenizer, with neither truncation nor padding."""
        ...

    def as_seen(self, text: str, *, query: bool = False) -> str:
        """The text as the tokenizer sees it: after its prompt, in lower case if the model requires that."""
        ...


@dataclass(frozen=True)
class CountedEncoding:
    """A text of which a tokenizer tells only the number of tokens."""

    number: int
    ids: None = None

    def __len__(self) -> int:
        return self.number


@dataclass(frozen=True)
class CountedTokens:
    """A tokenizer that is not of the tokenizers library.

    Attributes:
        counts: numbers of tokens of some texts, special tokens included.
    """

    counts: Callable[[Sequence[str]], Sequence[int]]

    def encode(self, text: str) -> CountedEncoding:
        """As `tokenizers.Tokenizer.encode`."""
        return self.encode_batch_fast([text])[0]

    def encode_batch_fast(self, texts: Sequence[str]) -> list[CountedEncoding]:
        """As `tokenizers.Tokenizer.encode_batch_fast`."""
        return [CountedEncoding(number) for number in self.counts(texts)]


class TokenizedText(NamedTuple):
    """How many tokens a text has as the encoder sees it, and their ids, if they are within the length limit."""

    number: int
    ids: Sequence[int] | None


class Span(NamedTuple):
    """A chunk of a text: characters [start, end), its text, and its tokens as the encoder will see them."""

    start: int
    end: int
    text: str
    tokens: int
    tokens_dropped: int
    token_ids: Sequence[int] | None


class TextChunker:
    """Splits items into chunks for one encoder.

    Args:
        config: of which `chunk`, `corpus.format`, `corpus.metadata` and `collection.id_max_bytes` count.
        model: whose tokenizer and length limit count.

    Raises:
        ConfigurationError: if `chunk.max_tokens` leaves no tokens for text, or is more than the model accepts.
    """

    def __init__(self, config: Config, model: Tokenizing) -> None:
        self._chunk = config.chunk
        self._format = config.corpus.format
        self._id_max_bytes = config.collection.id_max_bytes
        self._schema = chunk_schema({name: field.type for name, field in config.corpus.metadata.items()})
        self._metadata = list(config.corpus.metadata)
        self._model = model
        limit = model.max_tokens
        chosen, overlap = (config.chunk.max_tokens, config.chunk.overlap_tokens) if config.chunk else (limit, 0)
        if config.chunk and chosen > limit and not config.chunk.of_tokens:
            # The default is for longer texts than this model takes: what nobody configured is not a mistake.
            chosen, overlap = limit, overlap * limit // chosen
        if chosen > limit:
            raise ConfigurationError(
                f"chunk.max_tokens: {chosen} is more than the {limit} tokens that {model.config.model} takes",
                f"set it to {limit} or less",
            )
        self._limit, self._overlap = chosen, overlap
        self._around = len(self._tokenizer.encode(model.prompt))  # special tokens and prompt
        if self._limit - self._around < max(1, overlap + 1):
            raise ConfigurationError(
                f"chunk.max_tokens: {self._limit} leaves {self._limit - self._around} tokens for text in addition to "
                f"{self._around} of prompt and special tokens",
                "raise it, or shorten encoder.prompt or chunk.overlap_tokens",
            )

    def chunk(self, items: pa.Table) -> Chunked:
        """See `Chunker.chunk`."""
        texts = items.column("@content").to_pylist()
        identities = zip(*(items.column(name).to_pylist() for name in ("item_id", "@uri", "@place")), strict=True)
        rows: list[tuple[str, str, int, Span, str]] = []
        taken: list[int] = []
        rejects: list[Reject] = []
        for index, ((item_id, uri, place), spans) in enumerate(zip(identities, self._spans(texts, items), strict=True)):
            reject = self._check(item_id, uri, place, spans)
            if reject is not None:
                rejects.append(reject)
                continue
            for number, span in enumerate(spans):
                rows.append((row_id(item_id, number), item_id, number, span, content_hash(span.text)))
                taken.append(index)
        # Without the content, which would be copied for each of an item's chunks.
        facts = items.select([*self._metadata, *item_facts().names]).take(pa.array(taken, pa.int64()))
        return Chunked(self._table(rows, facts), rejects_table(rejects))

    def _table(self, rows: Sequence[tuple[str, str, int, Span, str]], items: pa.Table) -> pa.Table:
        columns: dict[str, Any] = {
            "id": [row[0] for row in rows],
            "item_id": [row[1] for row in rows],
            "chunk": [row[2] for row in rows],
            "text": [row[3].text for row in rows],
            "start": [row[3].start for row in rows],
            "end": [row[3].end for row in rows],
            "content_hash": [row[4] for row in rows],
            "tokens": [row[3].tokens for row in rows],
            "tokens_dropped": [row[3].tokens_dropped for row in rows],
            TOKEN_IDS: [row[3].token_ids for row in rows],
            **{name: items.column(name) for name in [*self._metadata, *item_facts().names]},
        }
        return pa.table(columns, schema=self._schema)

    def _check(self, item_id: str, uri: str, place: str, spans: Sequence[Span]) -> Reject | None:
        if not any(span.tokens > self._around for span in spans):
            reason = "the text has no token that the encoder knows (only white space or control characters)"
            return Reject(item_id, uri, place, "chunk", "EmptyText", reason)
        longest = len(row_id(item_id, len(spans) - 1).encode())
        if longest > self._id_max_bytes:
            return id_too_long(item_id, uri, place, longest, self._id_max_bytes)
        return None

    def _spans(self, texts: Sequence[str], items: pa.Table) -> Iterator[list[Span]]:
        known = self._tokens(texts)
        if not self._chunk:
            yield from ([self._uncut(text, tokens)] for text, tokens in zip(texts, known, strict=True))
            return
        whole = [self._fits(text, tokens) for text, tokens in zip(texts, known, strict=True)]
        uris = items.column("@uri").to_pylist()
        long = [(text, self._is_markdown(uri)) for text, uri, fits in zip(texts, uris, whole, strict=True) if not fits]
        split = self._split(long)
        for text, tokens, fits in zip(texts, known, whole, strict=True):
            pieces = [(0, text, tokens)] if fits else next(split)
            yield [Span(start, start + len(piece), piece, own.number, 0, own.ids) for start, piece, own in pieces]

    def _uncut(self, text: str, tokens: TokenizedText) -> Span:
        # The encoder drops tokens over its limit; the text column drops text over Milvus's limit, which is larger.
        stored = text.encode()[:VARCHAR_MAX_BYTES].decode(errors="ignore")
        over = max(0, tokens.number - self._limit)
        return Span(0, len(stored), stored, tokens.number - over, over, tokens.ids if stored == text else None)

    def _fits(self, text: str, tokens: TokenizedText) -> bool:
        short = tokens.number <= self._limit and len(text) <= VARCHAR_MAX_BYTES
        return short and len(text.encode()) <= VARCHAR_MAX_BYTES

    def _split(self, texts: Sequence[tuple[str, bool]]) -> Iterator[list[tuple[int, str, TokenizedText]]]:
        """Pieces of each text, with their start positions. A text comes with whether it is Markdown."""
        blocks = [(index, *block) for index, (text, _) in enumerate(texts) for block in _blocks(text)]
        pieces: list[list[tuple[int, str]]] = [[] for _ in texts]
        for markdown in (False, True):
            mine = [block for block in blocks if texts[block[0]][1] == markdown]
            if not mine:
                continue
            splitter = self._markdown_splitter if markdown else self._splitter
            # All at once, as the splitter then uses all cores.
            split = splitter.chunk_all_indices([block for _, _, block in mine])
            for (index, begin, _), found in zip(mine, split, strict=True):
                pieces[index].extend((begin + start, piece) for start, piece in found if piece.strip())
        known = iter(self._tokens([piece for own in pieces for _, piece in own]))
        for own in pieces:
            fine: list[tuple[int, str, TokenizedText]] = []
            for (start, piece), tokens in zip(own, islice(known, len(own)), strict=True):
                # The splitter counts tokens alone: a run without spaces may be one token and still be too many bytes.
                fine.extend([(start, piece, tokens)] if self._fits(piece, tokens) else self._halves(start, piece))
            yield fine

    def _halves(self, start: int, text: str) -> Iterator[tuple[int, str, TokenizedText]]:
        middle = len(text) // 2
        border = max(text.rfind(" ", middle // 2, middle), text.rfind("\n", middle // 2, middle)) + 1
        middle = border or middle
        for offset, half in ((start, text[:middle]), (start + middle, text[middle:])):
            if not half.strip():
                continue
            tokens = self._tokens([half])[0]
            if len(half) < 2 or self._fits(half, tokens):
                yield offset, half, tokens
            else:
                yield from self._halves(offset, half)

    def _tokens(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Tokens of each text as the encoder sees it: with prompt and special tokens."""
        found: list[TokenizedText] = []
        start = 0
        while start < len(texts):
            end, characters = start, 0
            while end < len(texts) and (end == start or characters + len(texts[end]) <= _TOKENIZED_CHARACTERS):
                characters += len(texts[end])
                end += 1
            for encoding in self._tokenizer.encode_batch_fast([self._model.as_seen(text) for text in texts[start:end]]):
                number = len(encoding)
                found.append(TokenizedText(number, encoding.ids if number <= self._limit else None))
            start = end
        return found

    def _is_markdown(self, uri: str) -> bool:
        if self._format is not None:
            return self._format == "markdown"
        name = PurePosixPath(uri.lower())
        return (PurePosixPath(name.stem).suffix if name.suffix in COMPRESSED else name.suffix) in _MARKDOWN

    @cached_property
    def _tokenizer(self) -> Tokenizer | CountedTokens:
        return self._model.tokenizer()

    @cached_property
    def _splitter(self) -> Any:
        from semantic_text_splitter import TextSplitter

        return self._splitter_of(TextSplitter)

    @cached_property
    def _markdown_splitter(self) -> Any:
        from semantic_text_splitter import MarkdownSplitter

        return self._splitter_of(MarkdownSplitter)

    def _splitter_of(self, library: Any) -> Any:
        tokenizer, most = self._tokenizer, self._limit - self._around
        if isinstance(tokenizer, CountedTokens):
            return library.from_callback(lambda text: tokenizer.counts([text])[0] - self._around, most, self._overlap)
        return library.from_huggingface_tokenizer(tokenizer, most, self._overlap)


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    """A text in blocks with their start positions: one, unless a line is so long that the splitter would take hours.

    Its time grows with the square of a line's length; a block ends at white space if it has some.
    """
    if len(text) <= LONGEST_LINE or max(map(len, text.splitlines())) <= LONGEST_LINE:
        yield 0, text
        return
    start = 0
    while start < len(text):
        end = min(len(text), start + LONGEST_LINE)
        if end < len(text):
            border = max(text.rfind(mark, start + LONGEST_LINE // 2, end) for mark in ("\n", " "))
            end = border + 1 if border > 0 else end
        yield start, text[start:end]
        start = end
