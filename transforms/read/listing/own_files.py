"""Files that vecbeam or Milvus Lite wrote, which are never a corpus, whatever the globs match."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from schemas.config import Config
from transforms.support.storage import filesystem

_CHECKPOINT = (
    r"(?:snapshots|files)/\d{6}-[0-9a-f]{8}-[0-9a-f]+\.parquet"
    r"|runs/(?:lock\.json|\d{8}T[^/]+/.+)"
    r"|loads/[^/]+/[^/]+"
    r"|[0-9a-f]{16,}/(?:(?:parts|items|rejects)/[^/]+\.parquet|space\.json|int8-sample\.(?:parquet|json))"
)
"""Names in `<checkpoint>/<name>`."""
_TELLING = (
    r"(?:snapshots|files)/\d{6}-[0-9a-f]{8}-[0-9a-f]+\.parquet"
    r"|runs/\d{8}T\d{6}[^/]*Z-[a-z]+-\d+/.+"
    r"|[0-9a-f]{16,}/(?:parts|items|rejects)/[^/]+\.parquet"
    r"|collections/[^/]+/(?:partitions/[^/]+/(?:data|deltas?|indexes)|wal)/[^/]+"
)
_IN_CHECKPOINT = re.compile(_CHECKPOINT)
_FOLDER = re.compile(r"(?:^|/)(?:snapshots|files|runs|loads|parts|items|rejects|collections)/")
_ANYWHERE = re.compile(rf"(?s:.*/)?(?:{_TELLING})")


def looks_written(path: str) -> bool:
    """Whether a path, below some folder, has a name of a checkpoint's files or of Milvus Lite's."""
    return _ANYWHERE.fullmatch(path) is not None


@dataclass(frozen=True)
class Own:
    """Where a configuration's own files are.

    Attributes:
        checkpoint: the folder of this corpus in the checkpoint; "" for none.
        lite: the folder of Milvus Lite; "" for none.
    """

    checkpoint: str = ""
    lite: str = ""

    @classmethod
    def of(cls, config: Config) -> Own:
        """The folders of a configuration."""
        lite = config.collection.uri if config.collection.is_lite else ""
        return cls(filesystem.join(config.checkpoint, config.name), lite)

    def test(self, root: str) -> Callable[[str], bool]:
        """A test whether a file, by its uri, is one of them, or of another checkpoint below a glob's root."""
        local = filesystem.is_local(root)
        checkpoint = self._below(self.checkpoint, root)
        lite = self._below(self.lite, root)

        @lru_cache(maxsize=1 << 14)
        def place(folder: str) -> tuple[str, bool]:
            """A folder by whatever links it is reached, and whether a file of vecbeam may be in it."""
            real = os.path.realpath(folder or "/") if local else folder
            inside = [own for own in (checkpoint, lite) if own and f"{real}/".startswith(own)]
            return real, bool(inside) or _FOLDER.search(folder[len(root) :] + "/") is not None

        def is_own(uri: str) -> bool:
            folder, _, name = uri.rpartition("/")
            real, possible = place(folder)
            if not possible:
                return False
            path = f"{real}/{name}"
            if looks_written(uri[len(root) :]) or (lite and path.startswith(lite)):
                return True
            # By their names, not only by their folder: if the checkpoint is the root of a bucket, the corpus may be
            # in the folder with its name.
            inside = bool(checkpoint) and path.startswith(checkpoint)
            return inside and _IN_CHECKPOINT.fullmatch(path, len(checkpoint)) is not None

        return is_own

    @staticmethod
    def _below(folder: str, root: str) -> str:
        """A folder with a slash at its end, or "" if nothing of a glob with this root can be in it."""
        if not folder or filesystem.is_local(folder) != filesystem.is_local(root):
            return ""
        if not filesystem.is_local(folder):
            return folder.rstrip("/") + "/"
        return os.path.realpath(folder) + "/" if os.path.isdir(folder) else ""  # noqa: PTH112
