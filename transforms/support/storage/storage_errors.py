"""The meaning of a store's error: a missing file, permission or credential, a wrong place, or a transient fault."""

from __future__ import annotations

import errno
import re

from schemas.errors import StorageError
from transforms.support.storage.remote.answer import UNREASONED

_MISSING = re.compile(r"not found|NoSuchKey|BlobNotFound|does not exist|\b404\b", re.IGNORECASE)
_CREDENTIALS = re.compile(
    r"credential|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|AuthenticationFailed|unauthorized"
    r"|unauthenticated|invalid_grant|token request|\b401\b",
    re.IGNORECASE,
)
_RIGHT = re.compile(r"AccessDenied|access denied|forbidden|permission|not authorized|\b403\b", re.IGNORECASE)
_PLACE = re.compile(
    r"NoSuchBucket|ContainerNotFound|bucket.{0,80}(not exist|not found)|name or service not known|nodename nor servname"
    r"|getaddrinfo|could not connect to the endpoint|invalid endpoint|name resolution|no such host",
    re.IGNORECASE,
)

_CLOCK = re.compile(
    r"RequestTimeTooSkewed|RequestExpired|date header.{0,20} too old|used too (early|late)", re.IGNORECASE
)
_REGION = re.compile(
    r"PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraint|incorrectly configured region",
    re.IGNORECASE,
)


def is_missing(error: BaseException) -> bool:
    """Whether an error says that the file is missing, although its bucket can be reached."""
    if isinstance(error, FileNotFoundError):
        return True
    text = _text(error)
    if _PLACE.search(text) or _RIGHT.search(text) or _CREDENTIALS.search(text):
        return False
    return _code(error) == 404 or bool(_MISSING.search(text))


def is_forbidden(error: BaseException) -> bool:
    """Whether an error says that the account may not read a file; some stores say no more of a missing one."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, PermissionError) or _code(found) == 403 or _RIGHT.search(_text(found)):
            return True
        found = found.__cause__
    return False


def storage_error(what: str, uri: str, error: BaseException) -> StorageError:
    """The error of a store as one line with its remedy.

    Args:
        what: the operation: "read", "write", ...

    >>> storage_error("read", "gs://b/k", OSError("invalid_grant: Token has been revoked")).remedy
    "check the credentials of this machine and of the workers: they are missing, expired or another account's"
    """
    if isinstance(error, StorageError):
        return error
    text = _text(error)
    code = _code(error)
    if _CLOCK.search(text):
        remedy = "set the clock of this machine and of the workers: stores refuse requests of 15 minutes' difference"
    elif _REGION.search(text):
        remedy = "set runner.s3_region_name or AWS_DEFAULT_REGION to the region of the bucket"
    elif _PLACE.search(text):
        remedy = "check the bucket's name and the endpoint, and that this machine and the workers reach it"
    elif code == 401 or _CREDENTIALS.search(text):
        remedy = (
            "check the credentials of this machine and of the workers: they are missing, expired or another account's"
        )
    elif isinstance(error, PermissionError) or code == 403 or _RIGHT.search(text):
        right = {"look for": "read", "open": "read"}.get(what, what)
        remedy = f"give the account of this machine and of the workers the right to {right} there"
        if UNREASONED in text:
            remedy += "; if it has the right, check the credentials and the clocks"
    else:
        remedy = "run the same command again once the store answers; what is written is kept"
    name = type(error).__name__
    says_all = name in text or getattr(error, "errno", None) or getattr(error, "says_all", False)
    reason = text if says_all else f"{name}: {text}"
    return StorageError(f"can't {what} {uri}: {reason}", remedy)


def _text(error: BaseException) -> str:
    number = getattr(error, "errno", None)
    if isinstance(error, OSError) and number in errno.errorcode and error.strerror:
        return str(error.strerror)
    return " ".join(str(getattr(error, "message", None) or error).split())


def _code(error: BaseException) -> int | None:
    code = getattr(error, "code", None) or getattr(error, "status_code", None)
    return code if isinstance(code, int) else None
