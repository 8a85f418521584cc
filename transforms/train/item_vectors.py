"""Vectors of items from histories: items that people choose together are near each other.

Word2vec over histories as sentences of item ids: Barkan and Koenigstein, Item2Vec, 2016; Mikolov et al., 2013.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import orjson

from schemas.errors import ConfigurationError
from transforms.support.extras import need
from transforms.support.storage import filesystem
from transforms.support.storage.named_file import lines_of, read_named

KEY = "--histories"
SHAPES = '["bread", "butter"], or {"items": ["bread", "butter"]}'


class Histories(NamedTuple):
    """Histories of a file, and its SHA-256."""

    items: Sequence[Sequence[str]]
    digest: str


def read_histories(path: str) -> Histories:
    """Reads JSON lines: each a list of item ids, or an object with `items`.

    Raises:
        ConfigurationError: with the line, for what is not such a file, an id that is blank or has white space; if no
            history has two items.
    """
    data = read_named(path, KEY)
    found = []
    for number, line in lines_of(data):
        place = f"{KEY}: {path}, line {number}"
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise ConfigurationError(f"{place} is not valid JSON: {error}", f"write {SHAPES}") from None
        items = record.get("items") if isinstance(record, dict) else record
        if not isinstance(items, list):
            raise ConfigurationError(f"{place} has no list of items", f"write {SHAPES}")
        found.append([_item(one, place) for one in items])
    together = [items for items in found if len(set(items)) > 1]
    if not together:
        raise ConfigurationError(
            f"{KEY}: no history of {path} has two items", "give baskets, playlists or sessions of several items"
        )
    return Histories(together, hashlib.sha256(data).hexdigest())


def write_item_vectors(
    path: Path,
    histories: Sequence[Sequence[str]],
    dimensions: int = 64,
    epochs: int = 20,
    least: int = 2,
    seed: int = 0,
) -> int:
    """Trains item vectors and writes them as a text file of word2vec, which the family `words` reads.

    One worker and hashes that do not depend on the process: the same histories give the same file.

    Args:
        path: with the suffix .vec.
        least: items in fewer histories have no vector.

    Returns:
        How many items have one.

    Raises:
        ConfigurationError: if fewer than two items have one.
        MissingExtraError: if gensim is not installed.
    """
    need("classical", "vecbeam train --histories", "gensim")
    from gensim.models import Word2Vec

    longest = max(map(len, histories))
    try:
        model = Word2Vec(
            [list(items) for items in histories],
            vector_size=dimensions,
            window=longest,
            min_count=least,
            sg=1,
            negative=10,
            sample=0,
            epochs=epochs,
            seed=seed,
            workers=1,
            hashfxn=_stable_hash,
        )
        known = len(model.wv)
    except RuntimeError:  # gensim's, for an empty vocabulary
        known = 0
    if known < 2:
        raise ConfigurationError(f"{KEY}: {known} items are in at least {least} histories", "lower --least")
    lines = [f"{known} {dimensions}"]
    for item in model.wv.index_to_key:
        lines.append(" ".join([item, *(f"{number:.6g}" for number in model.wv[item])]))
    filesystem.write_atomic(str(path), ("\n".join(lines) + "\n").encode())
    return known


def _item(value: object, place: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value):
        raise ConfigurationError(f"{place}: {value!r} is not an id of an item", f"write {SHAPES}")
    if len(str(value).split()) != 1 or str(value) != str(value).strip():
        raise ConfigurationError(
            f"{place}: the item id {value!r} has white space, which a file of word vectors can't hold",
            "replace it, for example by an underscore, as in the corpus",
        )
    return str(value)


def _stable_hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")
