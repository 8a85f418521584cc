"""Chunks: spans of the text, within tokens and bytes, and nothing lost but white space."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from corpora import configure
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.config import ChunkConfig, Config, EncoderConfig
from schemas.errors import ConfigurationError
from schemas.layout import TOKEN_IDS, item_schema
from transforms.checkpoint.part_digest import batch_digest
from transforms.chunk.text import TextChunker
from transforms.embed.work import with_facts
from transforms.encoders import resolve

BASE = Config(name="c", corpus={"paths": ["x"]}, checkpoint="c", collection={"uri": "m.db"})


def chunker(chunk: ChunkConfig | bool = ChunkConfig(), **encoder: object) -> TextChunker:  # noqa: B008
    config = BASE.model_copy(update={"chunk": chunk, "encoder": EncoderConfig(**encoder)})
    return TextChunker(config, resolve(config.encoder))


MINILM = chunker()
TOKENIZER = resolve(EncoderConfig()).tokenizer()


def chunks_of(text: str, by: TextChunker = MINILM, uri: str = "a.txt") -> list[dict[str, object]]:
    items = pa.table({"item_id": ["i"], "@uri": [uri], "@place": [""], "@content": [text]}, schema=item_schema({}))
    chunks, rejects = by.chunk(with_facts(items, b""))
    assert chunks.num_rows > 0 or rejects.num_rows == 1
    return chunks.to_pylist()


def check(text: str, chunks: list[dict[str, object]]) -> None:
    covered = bytearray(len(text))
    for number, chunk in enumerate(chunks):
        start, end = chunk["start"], chunk["end"]
        assert text[start:end] == chunk["text"]
        assert (chunk["chunk"], chunk["id"]) == (number, f"i#{number}")
        assert len(str(chunk["text"]).encode()) <= 65535
        assert chunk[TOKEN_IDS] == TOKENIZER.encode(str(chunk["text"])).ids
        assert len(TOKENIZER.encode(str(chunk["text"])).ids) == chunk["tokens"] <= 256
        assert chunk["tokens_dropped"] == 0
        covered[start:end] = b"x" * (end - start)
    assert all(covered[at] or text[at].isspace() for at in range(len(text)))


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3000).map(lambda t: "word " + t))
def test_nothing_is_lost_but_white_space(text: str) -> None:
    check(text, chunks_of(text))


@pytest.mark.parametrize(
    "text",
    [
        "A sentence. " * 3000,
        "x" * 200_000,
        "東京は日本の首都です。" * 500,
        "🚢" * 20_000,
        ("Paragraph one.\n\n" + "Another paragraph, longer. " * 30 + "\n\n") * 20,
    ],
    ids=["sentences", "one word", "no spaces", "emoji", "paragraphs"],
)
def test_long_texts(text: str) -> None:
    chunks = chunks_of(text)
    assert len(chunks) > 1
    check(text, chunks)


def test_a_text_within_the_limit_is_one_chunk_as_it_is() -> None:
    assert [c["text"] for c in chunks_of("  Two sentences. With space around.  ")] == [
        "  Two sentences. With space around.  "
    ]


def test_chunks_share_tokens() -> None:
    chunks = chunks_of("A sentence about ships. " * 200)
    assert all(one["end"] > two["start"] for one, two in pairwise(chunks))
    apart = chunks_of("A sentence about ships. " * 200, chunker(ChunkConfig(overlap_tokens=0)))
    assert all(one["end"] <= two["start"] for one, two in pairwise(apart))


def test_markdown_is_split_at_its_headings() -> None:
    text = "".join(f"# Heading {n}\n\n" + "Words of a section. " * 35 + "\n\n" for n in range(4))
    chunks = chunks_of(text, uri="page.md")
    assert [str(c["text"])[:11] for c in chunks] == [f"# Heading {n}" for n in range(4)]


def test_without_chunking_tokens_are_dropped_and_counted() -> None:
    (chunk,) = chunks_of("word " * 1000, chunker(False))
    assert (chunk["tokens"], chunk["tokens_dropped"], chunk["text"]) == (256, 746, "word " * 1000)
    assert chunk[TOKEN_IDS] is None
    (long,) = chunks_of("word " * 20_000, chunker(False))
    assert len(str(long["text"])) == long["end"] == 65535


def test_a_prompt_takes_its_room() -> None:
    with_prompt = chunker(prompt="passage: ")
    for chunk in chunks_of("A sentence about ships. " * 200, with_prompt):
        assert chunk[TOKEN_IDS] == TOKENIZER.encode("passage: " + str(chunk["text"])).ids
        assert len(chunk[TOKEN_IDS]) == chunk["tokens"] <= 256


@pytest.mark.parametrize("text", ["\u200b\x01", " \n\t "])
def test_a_text_without_tokens_is_rejected(text: str) -> None:
    items = pa.table({"item_id": ["i"], "@uri": ["a"], "@place": ["l"], "@content": [text]}, schema=item_schema({}))
    chunks, rejects = MINILM.chunk(with_facts(items, b""))
    assert (chunks.num_rows, rejects.column("error").to_pylist()) == (0, ["EmptyText"])


def test_limits_over_the_model_s_are_refused(tmp_path: Path) -> None:
    config = configure(tmp_path, chunk={"max_tokens": 300})
    with pytest.raises(ConfigurationError, match=r"chunk.max_tokens: 300 is more than the 256 tokens"):
        TextChunker(config, resolve(config.encoder))


def test_a_line_of_megabytes_is_split_like_any_text() -> None:
    text = " ".join(f"word{number}" for number in range(100_000))
    check(text, chunks_of(text))


def test_what_a_chunk_has_on_its_way_alone_names_no_part() -> None:
    text = "A sentence about ships. " * 200
    items = pa.table({"item_id": ["i"], "@uri": ["a"], "@place": ["l"], "@content": [text]}, schema=item_schema({}))
    chunks, _ = MINILM.chunk(with_facts(items, b""))
    name = batch_digest(chunks, "space", 1)
    assert name == batch_digest(chunks.drop_columns(["@token_ids", "@uri", "@place"]), "space", 1) == "92be9ff3b5c54448"
    assert name != batch_digest(chunks, "another space", 1)
    shorter = chunks.slice(0, chunks.num_rows - 1)
    assert name != batch_digest(shorter, "space", 1)
