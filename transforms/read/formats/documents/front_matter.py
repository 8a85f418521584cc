"""Front matter of Markdown: YAML between two lines of `---` at the beginning, the fields of the file."""

from __future__ import annotations

import re
from typing import Any

import yaml

from transforms.read.rejected_item import RejectedItemError, shown

MAX_BYTES = 1 << 20
_BLOCK = re.compile(r"---[ \t]*\r?\n(.*?)(?:^|(?<=\n))(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_KEY = re.compile(r"""\s*(?:#[^\n]*\n\s*)*["']?[\w.-]+["']?[ \t]*:(?:\s|$)""")


class _Loader(yaml.SafeLoader):
    """SafeLoader that leaves dates as they are written."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def split(text: str) -> tuple[dict[str, Any], str]:
    """The fields of a Markdown file and its text without them; no fields where it has no front matter.

    Raises:
        RejectedItemError: `InvalidFrontMatter` where it begins like one and is not valid YAML.

    >>> split("---\\ntitle: A\\n---\\n# Text")
    ({'title': 'A'}, '# Text')
    >>> split("---\\nA rule above, and one below.\\n---\\n")[0]
    {}
    """
    block = _BLOCK.match(text) if text.startswith("---") else None
    if block is None or len(block[1]) > MAX_BYTES:
        return {}, text
    try:
        fields = yaml.load(block[1], _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if not _KEY.match(block[1]):  # a text between two thematic breaks
            return {}, text
        problem = " ".join(str(error).split())
        raise RejectedItemError(
            "InvalidFrontMatter", f"The front matter is not valid YAML: {problem}: {shown(block[1])}"
        ) from error
    if fields is None and all(line.strip()[:1] in ("", "#") for line in block[1].splitlines()):
        fields = {}
    if not isinstance(fields, dict):
        return {}, text
    return {str(key): value for key, value in fields.items()}, text[block.end() :]
