"""Names that fields of a collection may have, and the limits of their values."""

from __future__ import annotations

VARCHAR_MAX_BYTES = 65535
"""Largest VARCHAR of a Milvus server, in UTF-8 bytes."""

LITE, SERVER = "Milvus Lite", "a Milvus server"
RESULT_NAMES = ("score", "distance")
"""What each search result has in addition to the columns of its row; a column of that name would hide it."""

SYSTEM_FIELDS: dict[str, frozenset[str]] = {
    LITE: frozenset({"_seq", "_partition"}),
    SERVER: frozenset({"RowID", "Timestamp"}),
}
"""Fields that each collection has already; a schema with one of these names is refused."""

_OPERATORS = ("and", "or", "not", "in", "like", "exists", "true", "false")
_FUNCTIONS = (
    *("json_contains", "json_contains_all", "json_contains_any"),
    *("array_contains", "array_contains_all", "array_contains_any", "array_length"),
    *("text_match", "phrase_match", "random_sample"),
)
FILTER_KEYWORDS: dict[str, frozenset[str]] = {
    # In any case: Lite's lexer folds it. It refuses iso and interval as field names too.
    LITE: frozenset({*_OPERATORS, "is", "null", "iso", "interval"}),
    # In lower and in upper case, as the lexer knows them; a Like is a field. From 2.5 on a server refuses them as
    # names, before that it takes them and no filter can name the field.
    SERVER: frozenset({*_OPERATORS, *_FUNCTIONS, "null"}),
}
"""Words of the filter language by server: no filter can name a column that is called so.

Lite: milvus_lite/search/filter/tokens.py, schema/validation.py. Server: Plan.g4 and the proxy's list of keywords.
"""


LATER_KEYWORDS = frozenset(
    {
        *("interval", "iso", "threshold", "minimum_should_match", "element_filter", "text_match_fuzzy"),
        *("match_all", "match_any", "match_least", "match_most", "match_exact"),
        *("st_equals", "st_touches", "st_overlaps", "st_crosses", "st_contains", "st_intersects", "st_within"),
        *("st_dwithin", "st_isvalid"),
    }
)
"""Words that some releases of the server from 2.6 on know, in lower and upper case, and earlier ones do not: columns of
these names work there, until the server is upgraded."""


def is_later_keyword(name: str) -> bool:
    """Whether some newer releases of the server can't filter by a column of this name."""
    return name in LATER_KEYWORDS or (name.isupper() and name.lower() in LATER_KEYWORDS)


def refusal(name: str, server: str) -> str | None:
    """Why no metadata column may have a name; None if it may.

    Args:
        name: of letters, digits and underscores.
        server: `LITE` or `SERVER`.

    >>> refusal("score", LITE)
    'each search result has a score of its own'
    >>> refusal("author", LITE) is None
    True
    """
    if name in RESULT_NAMES:
        return f"each search result has a {name} of its own"
    if name in SYSTEM_FIELDS[server]:
        return f"{server} has a field of that name in each collection"
    folds = server == LITE or name.isupper() or name in ("True", "False") or name.lower() == "null"
    if (name.lower() if folds else name) in FILTER_KEYWORDS[server]:
        return f"it is a word of the filter language of {server}, so no filter could name the column"
    return None
