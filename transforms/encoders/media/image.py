"""Images as every encoder of vecbeam sees them: RGB, upright, over white, within a bound of pixels.

Decoding is exact, unless the configuration says `encoder.decoding: scaled`: then a JPEG file that is much larger than
the model needs is scaled while it is decoded, which the space says.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from schemas import locator
from schemas.errors import EncoderError
from transforms.encoders.media.content import RefusedError, read
from transforms.support.pdf_pages import PdfError, page_image

if TYPE_CHECKING:
    from PIL.Image import Image

    from schemas.config import EncoderConfig

MAX_PIXELS = 178_956_970
"""A larger image is refused before it is decoded: Pillow's own bound."""
SCALED_FROM, SCALED_TO = 4, 2
"""A file is scaled if its shorter side has so many times the pixels that are needed, and keeps so many at least."""
SCALED = f"scaled: JPEG files of {SCALED_FROM} times the needed side or more, to {SCALED_TO} times it or more"
_NAMES = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF", "PPM", "JPEG2000", "ICO", "MPO")
_LARGEST_8_BIT = 255
_LARGEST_16_BIT = 65535


def decoding_fact(config: EncoderConfig) -> str:
    """How files are decoded, as a space says it."""
    return SCALED if config.decoding == "scaled" else "exact"


def scaled_side(config: EncoderConfig, needed: int) -> int:
    """The argument of `decode`.

    Args:
        needed: the shorter side that a model's transform needs.
    """
    return needed if config.decoding == "scaled" else 0


def decode(data: bytes, scaled_side: int = 0) -> Image:
    """An image of a file's bytes, in RGB.

    EXIF orientation is applied; transparency is over white; colours of CMYK and others with a profile become sRGB by
    it; 16 bits become 8; of an animation it is the first frame.

    Args:
        scaled_side: the shorter side that is needed, where a larger JPEG file is scaled while it is decoded; 0 decodes
            exactly.

    Raises:
        RefusedError: `NotAnImage`, `DamagedImage`, or `TooManyPixels`.
        EncoderError: if Pillow is not installed.
    """
    try:
        from PIL import Image as library
        from PIL import ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise EncoderError(f"Pillow is needed to decode images: {error}", "pip install 'vecbeam[image]'") from error
    if not data:
        raise RefusedError("EmptyFile", "The file has no bytes")
    try:
        with library.open(io.BytesIO(data), formats=_formats(library)) as opened:
            _check_pixels(opened.size)
            if scaled_side and opened.format == "JPEG" and min(opened.size) >= SCALED_FROM * scaled_side:
                opened.draft(opened.mode, (SCALED_TO * scaled_side, SCALED_TO * scaled_side))
            opened.load()
            ImageOps.exif_transpose(opened, in_place=True)
            return _rgb(opened)
    except UnidentifiedImageError as error:
        raise RefusedError("NotAnImage", f"The file is not an image that Pillow knows; {_begins(data)}") from error
    except library.DecompressionBombError as error:
        raise RefusedError("TooManyPixels", f"{error}") from error
    except RefusedError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # decoders raise errors of many kinds for damaged files
        raise RefusedError("DamagedImage", f"The image can't be decoded: {type(error).__name__}: {error}") from error


def opened_image(address: str, data: bytes | None, scaled_side: int = 0) -> Image:
    """The image of an address: a file's, or a page of a PDF; see `decode`.

    Args:
        address: see `schemas.locator`.
        data: the bytes of the file if they are in memory already.
        scaled_side: see `decode`.

    Raises:
        RefusedError: as `decode` and `read` do; `InvalidPdf` or `EncryptedPdf`.
    """
    place = locator.parsed(address)[1]
    data = read(address) if data is None else data
    if not isinstance(place, locator.PdfPage):
        return decode(data, scaled_side)
    try:
        return page_image(data, place.number, place.dpi, MAX_PIXELS)
    except PdfError as error:
        raise RefusedError(error.error, error.reason) from error


def _formats(library: Any) -> list[str]:
    # By their content, whatever the name says; nothing that runs a program (EPS) or opens other files.
    library.init()
    return [name for name in library.OPEN if name in _NAMES]


def _check_pixels(size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise RefusedError(
            "TooManyPixels", f"The image has {width:,} x {height:,} pixels, more than {MAX_PIXELS:,}; scale it down"
        )


def _begins(data: bytes) -> str:
    return f"it begins with {data[:16]!r}"


def _rgb(image: Image) -> Image:
    from PIL import Image as library

    if image.mode.startswith("I"):
        # 16 bits, of which `convert` would cut values over 255 off.
        pixels = np.clip(np.asarray(image), 0, _LARGEST_16_BIT)
        wide = image.mode != "I" or pixels.max(initial=0) > _LARGEST_8_BIT
        image = library.fromarray((pixels / (_LARGEST_16_BIT / _LARGEST_8_BIT) if wide else pixels).astype(np.uint8))
    elif image.mode == "F":
        raise RefusedError("UnsupportedPixels", "The image has floating-point pixels, whose range is not known")
    image = _to_srgb(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layers = image.convert("RGBA")
        white = library.new("RGBA", layers.size, "white")
        return library.alpha_composite(white, layers).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_srgb(image: Image) -> Image:
    """Colours by the image's profile, where it is not of the kind that `convert` is right for."""
    profile = image.info.get("icc_profile")
    if image.mode != "CMYK" or not profile:
        return image
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except ImageCms.PyCMSError:
        return image  # a damaged profile: as if there were none
    assert converted is not None
    return converted
