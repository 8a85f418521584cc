"""The media files that were added to an index: copies in a folder of its corpus, checked before they are written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from pipelines.steps.corpus.added_texts import Refused
from pipelines.steps.corpus.given_media import bytes_of, is_in_memory
from schemas.errors import ConfigurationError, CorpusError, EncoderError
from schemas.formats import modality_of_suffix
from schemas.modality import Modality
from transforms.encoders.media.content import RefusedError
from transforms.encoders.media.image import decode
from transforms.support.storage import filesystem

FOLDER = "media"
"""Of the files, next to the configuration. An item's id is the name of its file."""
_LONGEST_NAME = 200
_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif"}
"""Of what Pillow calls a format, where the suffix is not its name."""


def is_media(value: Any) -> bool:
    """Whether what was given to `add` is a media file: a Path, bytes, a PIL image or an array of pixels."""
    return isinstance(value, Path) or is_in_memory(value)


@dataclass
class CheckedMedia:
    """Media files that were looked at, none of them written yet.

    Attributes:
        files: by their names: the path of a file, or its bytes.
        refused: by position.
    """

    files: dict[str, Path | bytes] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)

    @property
    def globs(self) -> list[str]:
        """Paths of a corpus that match the files, relative to the configuration."""
        return sorted({f"{FOLDER}/*{Path(name).suffix}" for name in self.files})

    @property
    def modalities(self) -> set[Modality]:
        """Of the files."""
        return {modality_of_suffix(Path(name).suffix.lower()) for name in self.files}


def check_media(given: Sequence[tuple[int, Any]], ids: Sequence[Any] | None) -> CheckedMedia:
    """Looks at each file. Images are decoded; what a recording or film holds is found when it is embedded.

    Args:
        given: positions and what `is_media` is true of.
        ids: of everything that was given to `add`; names of files, to which a missing suffix is appended.
    """
    checked = CheckedMedia()
    for position, value in given:
        name = None if ids is None else ids[position]
        try:
            found, content = _checked(value, name)
        except RefusedError as error:
            checked.refused.append(Refused(position, _shown(value, name), error.error, error.reason))
            continue
        except EncoderError as error:  # what decodes images is not installed
            checked.refused.append(Refused(position, _shown(value, name), "UnreadableMedia", str(error)))
            continue
        if checked.files.setdefault(found, content) != content:
            reason = f"The name {found!r} is that of another file of the same call"
            checked.refused.append(Refused(position, found, "DuplicateId", reason))
    return checked


def _shown(value: Any, name: Any) -> str | None:
    return str(name) if name is not None else value.name if isinstance(value, Path) else None


def _checked(value: Any, name: Any) -> tuple[str, Path | bytes]:
    content: Path | bytes
    if isinstance(value, Path):
        try:
            size = value.stat().st_size
        except OSError as error:
            raise RefusedError("UnreadableMedia", f"{value}: {error.strerror or error}") from error
        if not value.is_file() or not size:
            raise RefusedError("EmptyFile", f"{value} is not a file with bytes")
        suffix, content = value.suffix, value
        chosen = value.name if name is None else name
    else:
        content = data = _bytes_of(value)
        suffix = _suffix_of(data)
        chosen = f"media-{sha256(data).hexdigest()[:16]}" if name is None else name
    if not modality_of_suffix(suffix.lower()).is_media:
        raise RefusedError("UnknownMedia", f"The suffix {suffix!r} is not that of an image, a recording or a film")
    if isinstance(content, Path) and modality_of_suffix(suffix.lower()) is Modality.IMAGE:
        decode(content.read_bytes())
    return _file_name(chosen, suffix), content


def _bytes_of(value: Any) -> bytes:
    try:
        return bytes_of(value)
    except ConfigurationError as error:
        raise RefusedError("UnsupportedPixels", f"{error.message}; {error.remedy}") from error


def _suffix_of(content: bytes) -> str:
    """The suffix of an image; of others a program says it with a file."""
    import io

    from PIL import Image

    decode(content)
    with Image.open(io.BytesIO(content)) as image:
        kind = str(image.format)
    return _SUFFIXES.get(kind, f".{kind.lower()}")


def _file_name(name: Any, suffix: str) -> str:
    if not isinstance(name, str) or not name or len(name.encode(errors="replace")) > _LONGEST_NAME:
        raise RefusedError("WrongType", f"The id {name!r} is not a name of a file, of 1 to {_LONGEST_NAME} bytes")
    if name.startswith(".") or {"/", "\\", "\0"} & set(name):
        raise RefusedError("WrongType", f"The id {name!r} begins with a dot, or has a slash or a NUL in it")
    return name if name.lower().endswith(suffix.lower()) else name + suffix


def paths_of(folder: Path, names: Iterable[str]) -> list[Path]:
    """The paths of files with some names.

    Args:
        folder: of the configuration.
    """
    return [folder / FOLDER / name for name in names]


def write_media(folder: Path, files: dict[str, Path | bytes]) -> None:
    """Copies files into the folder, each in one step; a file with the same content stays as it is.

    Raises:
        CorpusError: if one can't be written.
    """
    target = folder / FOLDER
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            path = target / name
            if isinstance(content, bytes):
                if not path.exists() or path.read_bytes() != content:
                    filesystem.write_atomic(str(path), content)
            elif not (path.exists() and path.samefile(content)):
                temporary = path.with_name(f".{name}.new")
                shutil.copyfile(content, temporary)
                os.replace(temporary, path)
    except OSError as error:
        raise CorpusError(
            f"can't write into {target}: {error.strerror or error}", "make the folder writable"
        ) from error


def names_among(folder: Path, ids: set[str]) -> set[str]:
    """Those of some ids that are names of files here."""
    return {name for name in ids if not {"/", "\\", "\0"} & set(name) and (folder / FOLDER / name).is_file()}


def unmatched(folder: Path, patterns: Iterable[str]) -> list[str]:
    """Those of some paths of a corpus that are of this folder and match no file any more."""
    return [one for one in patterns if one.startswith(f"{FOLDER}/") and not any(folder.glob(one))]
