"""Small members of a tar in an object store: those that follow one another are read in one request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from schemas import locator
from transforms.support.storage import filesystem

SMALL_BYTES = 1 << 20
"""The largest member of a tar that is read together with others."""
TOGETHER_BYTES = 4 << 20
"""Most bytes of one request for members, and members of it, and between two of them."""
MOST_TOGETHER = 256
GAP_BYTES = 64 << 10


def ahead_of(addresses: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Each address, with those that follow it."""
    found = list(addresses)
    for place, address in enumerate(found):
        yield address, found[place + 1 : place + MOST_TOGETHER]


class MemberReader:
    """Reads small members of tars in an object store, those that follow one another in one request."""

    def __init__(self) -> None:
        self._uri, self._start, self._block = "", 0, b""

    def read(self, uri: str, member: locator.Member, following: list[str]) -> bytes | None:
        """The bytes of a member; None if it is large, or can't be read: whoever opens it meets the same."""
        if member.length > SMALL_BYTES:
            return None
        at = member.offset - self._start
        if uri != self._uri or at < 0 or at + member.length > len(self._block):
            try:
                self._block = filesystem.read_range(uri, member.offset, _end_of(uri, member, following) - member.offset)
            except Exception:
                self._uri, self._block = "", b""
                return None
            self._uri, self._start, at = uri, member.offset, 0
        found = self._block[at : at + member.length]
        return found if len(found) == member.length else None


def _end_of(uri: str, member: locator.Member, following: list[str]) -> int:
    """Where the members that follow one in its tar end, as far as they are small and read together."""
    end = member.offset + member.length
    for address in following:
        other, place = locator.parsed(address)
        if other != uri or not isinstance(place, locator.Member):
            break
        gap, whole = place.offset - end, place.offset + place.length - member.offset
        if not 0 <= gap <= GAP_BYTES or place.length > SMALL_BYTES or whole > TOGETHER_BYTES:
            break
        end = place.offset + place.length
    return end
