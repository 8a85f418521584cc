"""Converts obstore's errors to OSErrors that the rest of vecbeam handles."""

from __future__ import annotations

import errno
import re

from transforms.support.storage.remote.address import AZURE, Address


class ConditionError(OSError):
    """The object does not fulfil the condition of a request: another program has written it."""


class UnconditionalError(OSError):
    """The store does not support requests with a condition."""


class AnswerError(OSError):
    """A store's answer that is an error; `code` is the HTTP status, or None."""

    says_all = True
    """Its message needs no name of a class before it."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class OddKeyError(ValueError):
    """A key that obstore does not support, so that a listing with it fails."""


UNREASONED = "without a reason"
"""Of an answer without a body, as each to a HEAD."""
_STATUS = re.compile(r"status code: (\d{3}) ?([A-Za-z ]*)")
_CODE = re.compile(r"<Code>([^<]*)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")
_CAUSE = re.compile(r'(?:message|error): "([^"]+)"')
_ENDPOINT = re.compile(r"https?://[^/\s]+")


def translated(error: Exception, address: Address) -> Exception:
    """An error of obstore as one that the rest of vecbeam handles; others unchanged."""
    name = type(error).__name__
    if not type(error).__module__.startswith("obstore") and not isinstance(error, (FileNotFoundError, ValueError)):
        return error
    text = str(error)
    found = _STATUS.search(text)
    code = int(found.group(1)) if found else None
    told = _CODE.search(text)
    if (told and told.group(1) in ("NoSuchBucket", "ContainerNotFound")) or (code == 404 and "list request" in text):
        return AnswerError(f"there is no bucket {address.root.rstrip('/')} (NoSuchBucket){_spelling(address)}", 404)
    if "Received redirect" in text:  # obstore follows none, and keeps nothing of the answer
        return AnswerError("the bucket is in another region (PermanentRedirect)", 301)
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, f"not found: {short(error)}", address.root + address.key)
    if name == "InvalidPathError" or "Could not parse path" in text:
        return OddKeyError(short(error))
    if "InvalidBlockList" in text:  # its blocks were discarded: see `object_store.write`
        return ConnectionError(f"another upload of the same blob ended first: {short(error)}")
    if code == 501 or name == "NotSupportedError" or "NotImplemented" in text[:200]:
        return UnconditionalError(short(error))
    if name in ("AlreadyExistsError", "PreconditionError", "NotModifiedError") or code in (409, 412):
        return ConditionError(short(error))
    code = code or {"PermissionDeniedError": 403, "UnauthenticatedError": 401}.get(name)
    if code is None and name == "GenericError" and "HTTP error" in text:
        return _unreached(text)
    return AnswerError(short(error), code) if name.endswith("Error") and name != "ValueError" else error


def _spelling(address: Address) -> str:
    """A hint where a URI may have Azure's account in place of its container."""
    if address.scheme not in AZURE or address.account:
        return ""
    return f"; {address.scheme}:// names the container first, azfs://ACCOUNT/CONTAINER/... the account"


def _unreached(text: str) -> OSError:
    endpoint = _ENDPOINT.search(text)
    causes = list(_CAUSE.findall(text)) or ["TimedOut" if "TimedOut" in text else short(text)]
    message = f"could not connect to the endpoint {endpoint.group() if endpoint else ''}: {causes[-1]}"
    if re.search(r"dns error|lookup address", text):
        return AnswerError(message)
    if "Connect" in text:
        return ConnectionError(message)
    return TimeoutError(message.replace("could not connect to", "no answer from"))


def short(error: Exception | str) -> str:
    """The first line of an error, with what the store says instead of its XML."""
    text = str(error).partition("\n\nDebug source")[0]
    status, told, message = (pattern.search(text) for pattern in (_STATUS, _CODE, _MESSAGE))
    if status and told:
        reason = f": {' '.join(message.group(1).split())}" if message else ""
        return f"{status.group(1)} {status.group(2).strip()} ({told.group(1)}){reason}"
    if status:
        said = " ".join(text[status.end() :].strip(" :").split())[:200]
        return f"{status.group(1)} {status.group(2).strip()}{f': {said}' if said else f', {UNREASONED}'}"
    return " ".join(text.split())[:300]
