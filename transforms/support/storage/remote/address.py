"""The place of an object: the parts of its URI."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

AZURE = ("az", "abfs", "abfss", "azfs")
SCHEMES = ("s3", "gs", *AZURE)
"""Schemes that obstore serves; URIs of other schemes go to Beam."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Address(NamedTuple):
    """An object's place.

    Attributes:
        root: the URI up to and with the slash before the key, as it was written.
        bucket: a container, on Azure.
        account: of Azure, where the URI names it.
        endpoint: the host of Azure, where the URI names it.
        key: without a slash before it; "" for the bucket as a whole.
    """

    scheme: str
    root: str
    bucket: str
    account: str
    endpoint: str
    key: str

    @property
    def is_plain(self) -> bool:
        """Whether obstore supports the key: no empty name, "." or ".." in it, and no control character.

        It would strip a slash at the end, and refuses the rest.
        """
        return is_plain(self.key)


def is_plain(key: str) -> bool:
    """See `Address.is_plain`."""
    return not _CONTROL.search(key) and not any(name in ("", ".", "..") for name in key.split("/"))


def parse(uri: str) -> Address:
    """The parts of a URI of one of `SCHEMES`.

    >>> parse("s3://bucket/a/b.txt")
    Address(scheme='s3', root='s3://bucket/', bucket='bucket', account='', endpoint='', key='a/b.txt')
    >>> parse("abfss://corpus@acme.dfs.core.windows.net/a")[1:]
    ('abfss://corpus@acme.dfs.core.windows.net/', 'corpus', 'acme', 'acme.dfs.core.windows.net', 'a')
    >>> parse("azfs://acme/corpus/a")[1:]
    ('azfs://acme/corpus/', 'corpus', 'acme', '', 'a')

    Raises:
        ValueError: if it names no bucket.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    root = f"{scheme}://{bucket}/"
    account = endpoint = ""
    if scheme == "azfs":
        account, (bucket, _, key) = bucket, key.partition("/")
        root += f"{bucket}/"
    elif "@" in bucket and scheme in AZURE:
        bucket, _, endpoint = bucket.partition("@")
        account = endpoint.partition(".")[0]
    if not bucket:
        raise ValueError(f"{uri} names no bucket")
    return Address(scheme, root, bucket, account, endpoint, key)


def is_served(uri: str) -> bool:
    """Whether obstore serves a URI's bucket.

    Emulators of GCS do not speak the XML interface that obstore uses, so Beam serves STORAGE_EMULATOR_HOST.
    """
    scheme = uri.partition("://")[0]
    return scheme in SCHEMES and not (scheme == "gs" and os.environ.get("STORAGE_EMULATOR_HOST"))
