"""Analogies of words (king - man + woman = queen) through an encoder: exact search, or `search` on a collection.

    python benchmarks/analogies.py [--model glove-6b-50d] [--vocabulary 30000] [--search] [--every 1]

The questions are questions-words.txt, which gensim carries: 19,544 lines `a b c d`, where d is to c what b is to a.
The protocol is that of gensim's `evaluate_word_analogies(restrict_vocab=30000)`: the items are the first 30,000 words
of the file of vectors; a question with a word that is none of them is left out; the answer is the item with the largest
cosine to b - a + c, without a, b and c; the figure is the share of all questions whose answer is d, upper and lower
case the same. Without --search a product of matrices finds the answer; with it, a backfill publishes the items with a
FLAT index in Milvus Lite, and `Searcher.search(b, minus=a, plus=c)` does.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from pipelines.backfill import backfill
from pipelines.steps.search.queries.word_arithmetic import Arithmetic
from pipelines.steps.search.search_options import SearchOptions
from pipelines.steps.search.searcher import Searcher
from schemas.config import Config, EncoderConfig
from schemas.config.loader import parse_config
from transforms.encoders import resolve, text_inputs
from transforms.encoders.words import WordsModel

WORDS = 30_000
_AT_ONCE = 1000


class Question(NamedTuple):
    """`answer` is to `third` what `second` is to `first`."""

    first: str
    second: str
    third: str
    answer: str


def questions(words: Sequence[str]) -> list[Question]:
    """The questions of gensim's file whose words are all among some words."""
    spec = find_spec("gensim")
    if spec is None or spec.origin is None:
        raise SystemExit("gensim is not installed: pip install gensim")
    file = Path(spec.origin).parent / "test" / "test_data" / "questions-words.txt"
    lines = file.read_text(encoding="utf-8").lower().splitlines()
    there = set(words)
    found = [Question(*line.split()) for line in lines if not line.startswith(":")]
    return [question for question in found if there.issuperset(question)]


def vocabulary(model: str, count: int) -> list[str]:
    """The first words of a file of vectors."""
    table = cast(WordsModel, resolve(EncoderConfig(model=model))).table
    return [table.word(row).decode() for row in range(min(count, len(table)))]


def exact_answers(model: str, words: Sequence[str], asked: Sequence[Question]) -> list[str]:
    """The answer to each question by exact search over the encoder's vectors."""
    vectors = resolve(EncoderConfig(model=model)).load().encode(text_inputs(words)).matrix
    rows = {word: row for row, word in enumerate(words)}
    found: list[str] = []
    for start in range(0, len(asked), _AT_ONCE):
        some = asked[start : start + _AT_ONCE]
        places = np.array([[rows[word] for word in question[:3]] for question in some])
        sums = [
            Arithmetic((question.third,), (question.first,)).sums(vectors[[second, third, first]])[0]
            for question, (first, second, third) in zip(some, places, strict=True)
        ]
        scores = np.stack(sums) @ vectors.T
        np.put_along_axis(scores, places, -np.inf, axis=1)
        found += [words[row] for row in scores.argmax(axis=1)]
    return found


def collection(folder: Path, model: str, words: Sequence[str]) -> Config:
    """Publishes words as items of a collection in Milvus Lite with exact search."""
    lines = (json.dumps({"id": str(row), "text": word}) for row, word in enumerate(words))
    (folder / "words.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = parse_config(
        {
            "name": "analogies",
            "corpus": {"paths": ["words.jsonl"]},
            "encoder": {"model": model},
            "checkpoint": "checkpoint",
            "collection": {"uri": "./milvus.db", "index": {"type": "FLAT"}},
        },
        source="analogies",
        folder=folder,
    )
    backfill(config)
    return config


def searched_answers(config: Config, asked: Sequence[Question]) -> Iterator[str]:
    """The answer to each question by `search` on a collection of words."""
    searcher = Searcher(config, release=True)
    try:
        for question in asked:
            found = searcher.search([question.second], 1, SearchOptions(minus=question.first, plus=question.third))
            yield str(found.hits[0][0]["text"])
    finally:
        searcher.close()


def share(answers: Sequence[str], asked: Sequence[Question]) -> float:
    """The share of right answers."""
    right = sum(found == question.answer for found, question in zip(answers, asked, strict=True))
    return right / len(asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="glove-6b-50d", help="of word vectors")
    parser.add_argument("--vocabulary", type=int, default=WORDS, help="how many words are items")
    parser.add_argument("--search", action="store_true", help="through a collection and `search`")
    parser.add_argument("--every", type=int, default=1, help="take each n-th question alone")
    arguments = parser.parse_args()
    words = vocabulary(arguments.model, arguments.vocabulary)
    asked = list(islice(questions(words), 0, None, arguments.every))
    start = time.perf_counter()
    if arguments.search:
        with tempfile.TemporaryDirectory() as folder:
            answers = list(searched_answers(collection(Path(folder), arguments.model, words), asked))
    else:
        answers = exact_answers(arguments.model, words, asked)
    how = "search" if arguments.search else "exact"
    seconds = time.perf_counter() - start
    print(f"{how}: {share(answers, asked):.4f} of {len(asked)} questions, {len(words)} items, {seconds:.1f} s")


if __name__ == "__main__":
    main()
