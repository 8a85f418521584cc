"""What a run deletes behind itself, whichever way it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from schemas.errors import JobLeftError, VecbeamError


@contextlib.contextmanager
def tidied(tidy: Callable[[], object]) -> Iterator[None]:
    """Tidies up after a block, unless a job that still needs the files runs on.

    The error of the block counts, and not one of tidying: a store that refuses everything has refused the block first.
    """
    try:
        yield
    except JobLeftError:
        raise
    except BaseException:
        with contextlib.suppress(VecbeamError, OSError):
            tidy()
        raise
    tidy()
