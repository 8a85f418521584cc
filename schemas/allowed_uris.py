"""Which URIs in records may be opened: text against text, before anything is opened.

Records are data that others wrote. So a record names only what is in its own file's folder, or below a prefix that the
author of the configuration listed in `corpus.allow_uris`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from schemas.locator import Target

WEB = ("http", "https")
STORES = ("s3", "gs", "az", "abfs", "abfss", "azfs", "hdfs")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class NotAllowedError(Exception):
    """A URI is not valid, or not allowed. Args: reason, a phrase."""


def normal(uri: str) -> str:
    """A path or URI in the one form in which it is compared with prefixes.

    A local path is absolute and without "." and ".."; `file:` URIs become one. Scheme and host are in lower case.

    >>> normal("HTTP://Example.com:80/a.jpg#b"), normal("file:///a/b%20c.jpg"), normal("/a/./b/../c.jpg")
    ('http://example.com/a.jpg', '/a/b c.jpg', '/a/c.jpg')

    Raises:
        NotAllowedError: if it is relative, or of a scheme that is never opened, or has parts that hide where it leads.
    """
    if _CONTROL.search(uri):
        raise NotAllowedError("it has a control character")
    found = _SCHEME.match(uri)
    if found is None:
        if not uri.startswith("/"):
            raise NotAllowedError("it is relative")
        return posixpath.normpath("/" + uri.lstrip("/"))
    scheme, rest = found[1].lower(), uri[found.end() :]
    if scheme == "file":
        host, _, path = rest.removeprefix("//").partition("/") if rest.startswith("//") else ("", "", rest.lstrip("/"))
        if host not in ("", "localhost"):
            raise NotAllowedError(f"it names the machine {host!r}")
        return normal("/" + unquote(path))
    if scheme in WEB:
        return _normal_web(scheme, uri)
    if scheme not in STORES or not rest.startswith("//"):
        raise NotAllowedError(f"vecbeam opens no {scheme}: URIs")
    if not rest[2:].partition("/")[0]:
        raise NotAllowedError("it names no bucket")
    if any(name in (".", "..") for name in rest.split("/")):
        raise NotAllowedError("it has '.' or '..' in its path")
    return f"{scheme}:{rest}"


def _normal_web(scheme: str, uri: str) -> str:
    if "\\" in uri or " " in uri:
        raise NotAllowedError("it has a space or a backslash")
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as error:
        raise NotAllowedError(f"it is not a valid URI: {error}") from error
    if not parts.hostname:
        raise NotAllowedError("it names no host")
    if "@" in parts.netloc:
        raise NotAllowedError("it has a user name in it")
    if any(name in (".", "..") for name in re.split(r"[/\\]", unquote(parts.path))):
        raise NotAllowedError("it has '.' or '..' in its path")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    host += "" if port in (None, _DEFAULT_PORTS[scheme]) else f":{port}"
    return f"{scheme}://{host}{parts.path or '/'}" + (f"?{parts.query}" if parts.query else "")


def is_local(uri: str) -> bool:
    """Whether it is a path, not a URI."""
    return _SCHEME.match(uri) is None


def is_relative(uri: str) -> bool:
    """Whether it is a path that begins at a folder."""
    return is_local(uri) and not uri.startswith("/")


def normal_prefix(prefix: str) -> str:
    """A prefix of `corpus.allow_uris`: it ends in a slash, so that `photos` does not stand for `photos-private`.

    Raises:
        NotAllowedError: if it is not valid.
    """
    if prefix.lower().startswith("file:"):
        raise NotAllowedError("write the folder's path, without file:")
    if "?" in prefix or "*" in prefix:
        raise NotAllowedError("it is a prefix, not a glob: remove what follows the folder")
    found = normal(prefix).rstrip("/") + "/"
    scheme = _SCHEME.match(found)
    if found == "/" or (scheme and found.count("/") < (4 if scheme[1] == "azfs" else 3)):
        raise NotAllowedError("it names no folder, bucket or host")
    return found


class AllowedUris:
    """What the records of one file may name.

    Args:
        prefixes: from `normal_prefix`.
        folder: of the file, a path or URI, to which relative paths are relative; "" for records that are in no file.
    """

    def __init__(self, prefixes: Sequence[str], folder: str = "") -> None:
        self._prefixes = tuple(prefixes)
        self._folder = folder.rstrip("/") + "/" if folder else ""

    def target(self, uri: str) -> Target:
        """What a record names.

        Raises:
            NotAllowedError: if it may not be opened; the reason is a phrase.
        """
        if not is_relative(uri):
            return self._listed(normal(uri), "it has no prefix of corpus.allow_uris")
        if _CONTROL.search(uri):
            raise NotAllowedError("it has a control character")
        if not self._folder:
            raise NotAllowedError("it is relative, and its record is in no file")
        path = posixpath.normpath(uri)
        if path.partition("/")[0] not in (".", ".."):
            return Target(self._folder + path, self._folder)
        scheme, between, rest = self._folder.rpartition("://")
        bucket, _, folder = rest.partition("/") if between else ("", "", rest)
        key = posixpath.normpath(posixpath.join("/", folder, path)).lstrip("/")
        whole = f"{scheme}://{bucket}/{key}" if between else f"/{key}"
        return self._listed(whole, "it leaves the folder of its record's file")

    def _listed(self, whole: str, otherwise: str) -> Target:
        for prefix in self._prefixes:
            if whole.startswith(prefix) and len(whole) > len(prefix):
                return Target(whole, prefix)
        raise NotAllowedError(otherwise)
