"""Families of encoders: which one reads a configuration's model, and its description.

A family is a function `describe(EncoderConfig, ModelSource) -> Model`. Other packages provide theirs as an entry point
of the group `vecbeam.encoders`, whose name is the family's; it is imported when it is first used.
"""

from __future__ import annotations

import importlib
import socket
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from schemas.config import EncoderConfig
from schemas.config.encoder import PICTURE, SOUND, WORD_VECTOR_FILES, PageEncoderConfig, SubtitlesEncoderConfig
from schemas.errors import NEW_VERSION, ConfigurationError, EncoderError, SpaceMismatchError
from schemas.layout import Space
from transforms.encoders.base import Model
from transforms.encoders.fitted.fitted_model import FittedModel
from transforms.encoders.fitted.kept_fits import NO_FITS, KeptFits
from transforms.encoders.model_files import read_json
from transforms.encoders.model_source import ModelSource
from transforms.encoders.transformers.architectures import ARCHITECTURES, PATCHES, WITHOUT_PROJECTION

FAMILIES = {
    "sentence_transformers": "transforms.encoders.sentence_transformers:describe",
    "router": "transforms.encoders.router:describe",
    "splade": "transforms.encoders.splade:describe",
    "bm25": "transforms.encoders.bm25:describe",
    "colbert": "transforms.encoders.late_interaction:describe",
    "timm": "transforms.encoders.timm:describe",
    "open_clip": "transforms.encoders.open_clip:describe",
    "transformers": "transforms.encoders.transformers.family:describe",
    "conse": "transforms.encoders.conse:describe",
    "remote": "transforms.encoders.remote.remote_model:describe",
    "fake": "transforms.encoders.fake:describe",
    "words": "transforms.encoders.words:describe",
    "whisper": "transforms.encoders.whisper:describe",
    "resemblyzer": "transforms.encoders.resemblyzer:describe",
    "use": "transforms.encoders.universal_sentence_encoder:describe",
    "tfidf": "transforms.encoders.classical.tfidf:describe",
    "lsa": "transforms.encoders.classical.lsa:describe",
    "projection": "transforms.encoders.classical.projection:describe",
    "hashing": "transforms.encoders.classical.hashing:describe",
    "word2vec": "transforms.encoders.classical.word2vec:describe",
}
"""vecbeam's own families: module and function of each."""
DEFAULT = "sentence_transformers"
LATE_INTERACTION = frozenset({"MultiVectorEncoder", "ColBERT", "HF_ColBERT"})
"""What files of models with a vector per token call themselves."""
ROUTER_FILE = "router_config.json"
"""Where sentence-transformers keeps which modules embed queries, and which documents."""
GROUP = "vecbeam.encoders"
Describe = Callable[[EncoderConfig, ModelSource], Model]

_FOUND: dict[tuple[str, str, str], Model] = {}
"""Models that this process has found, by configuration, checkpoint and space id: no weights are hashed again."""


def resolve(config: EncoderConfig, fits: KeptFits = NO_FITS) -> Model:
    """Finds the model of a configuration and reads what defines its space, without loading weights into memory.

    Args:
        fits: the fitted models that there are, for a family that is fitted on the corpus.

    Raises:
        ConfigurationError: if the name or the family is unknown, the folder holds no model, or a model that is not
            fitted has `encoder.fit`.
        EncoderError: if files can't be fetched, or are not those that the catalogue pins; or if a fitted model is
            missing or damaged.
    """
    source = ModelSource(config, fits)
    model = _describe(_family_of(source))(config, source)
    if config.fit is not None and not isinstance(model, FittedModel):
        raise ConfigurationError(
            f"encoder.fit: {config.model} is not fitted on the corpus",
            "remove encoder.fit, or name tfidf, lsa, projection, hashing or word2vec as encoder.model",
        )
    if config.decoding == "scaled":
        _check_scaled(config, model)
    model = _of_input(config, model)
    _FOUND[config.model_dump_json(), fits.root, model.space.id] = model
    return model


# What follows imports a family's modules where it needs them: each command that has a model imports this file.
def _check_scaled(config: EncoderConfig, model: Model) -> None:
    from transforms.encoders.media.image import SCALED

    if SCALED not in model.space.as_json():
        raise ConfigurationError(
            f"encoder.decoding: scaled: {config.model} does not decode images, or always decodes them exactly",
            "remove encoder.decoding",
        )


def _of_input(config: EncoderConfig, model: Model) -> Model:
    """A model that reads frames, sound tracks, subtitles or drawn pages, where that is the encoder's input."""
    if config.input == PICTURE:
        from transforms.encoders.derived.frames import of_films

        return of_films(model, config)
    if config.input == SOUND:
        from transforms.encoders.derived.sound_track import of_sound_tracks

        return of_sound_tracks(model, config)
    if isinstance(config, SubtitlesEncoderConfig):
        from transforms.encoders.derived.segment_subtitles import of_subtitles

        return of_subtitles(model, config)
    if isinstance(config, PageEncoderConfig):
        from transforms.encoders.derived.drawn_pages import of_drawn_pages

        return of_drawn_pages(model, config)
    return model


def resolve_on_worker(config: EncoderConfig, space_id: str, space: Space | None = None, root: str = "") -> Model:
    """Finds this machine's own files of a run's model and checks that they define the run's space.

    The configuration and the space id travel to a worker, never the model: files of a model have other paths on
    another machine, and may differ.

    Args:
        space_id: of the run.
        space: of the run, with the canary vectors of a model on a server.
        root: the corpus' folder in the checkpoint, where a fitted model is.

    Raises:
        EncoderError: if this machine has no such model.
        SpaceMismatchError: if its files define another space.
    """
    fits = KeptFits(root, lambda: () if space is None else (space,))
    model = _FOUND.get((config.model_dump_json(), root, space_id)) or _resolve_here(config, fits)
    if model.space.id != space_id:
        raise SpaceMismatchError(
            f"encoder.model {config.model} on the worker {socket.gethostname()} is of space {model.space.id}, "
            f"the run is of space {space_id}",
            "give each worker the model files of the machine that starts the run",
        )
    if space is not None and (drift := model.space.drift(space)):
        raise SpaceMismatchError(
            f"encoder.model {config.model} has changed since the run began, as the worker {socket.gethostname()} sees: "
            f"{drift}",
            NEW_VERSION,
        )
    return model


def _resolve_here(config: EncoderConfig, fits: KeptFits) -> Model:
    try:
        return resolve(config, fits)
    except ConfigurationError as error:
        raise EncoderError(
            f"the worker {socket.gethostname()} can't find the model of this run: {error.message}",
            "give each worker the model files of the machine that starts the run: the same packages, or access to the "
            "hub",
        ) from error


def _family_of(source: ModelSource) -> str:
    config = source.config
    if config.family is not None:
        return config.family
    if config.is_remote:
        return "remote"
    if source.entry is not None:
        return source.entry.family
    if config.model.endswith(WORD_VECTOR_FILES):
        return "words"
    # A model without files is named by its family.
    if config.model in FAMILIES or ("/" not in config.model and config.model in _brought()):
        return config.model
    return _family_of_files(source.folder())


def _family_of_files(folder: Path) -> str:
    """The family whose library wrote a folder."""
    if (folder / "open_clip_config.json").exists():
        return "open_clip"
    settings = read_json(folder / "config.json")
    if settings.get("model_type") == "whisper":
        return "whisper"
    if settings.get("model_type") in PATCHES:
        return "transformers"  # also where MultiVectorEncoder saved it
    kinds = {
        read_json(folder / "config_sentence_transformers.json").get("model_type"),
        *(settings.get("architectures") or ()),
    }
    if kinds & LATE_INTERACTION:
        return "colbert"
    if (folder / ROUTER_FILE).exists():
        return "router"
    if settings.get("model_type") in {*ARCHITECTURES, *WITHOUT_PROJECTION} and not (folder / "modules.json").exists():
        return "transformers"
    return "timm" if "architecture" in settings else DEFAULT


def _brought() -> dict[str, list[EntryPoint]]:
    """The families of other packages, by name."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, []).append(point)
    return found


def _describe(family: str) -> Describe:
    """The function of a family.

    Raises:
        ConfigurationError: if there is none of that name, or two, or its package can't be imported.
    """
    if family in FAMILIES:
        module, _, name = FAMILIES[family].partition(":")
        own: Describe = getattr(importlib.import_module(module), name)
        return own
    brought = _brought()
    points = brought.get(family, [])
    if not points:
        known = ", ".join([*FAMILIES, *sorted(brought)])
        raise ConfigurationError(
            f"encoder.family: {family!r} is not an installed family of encoders", f"use one of: {known}"
        )
    if len(points) > 1:
        raise ConfigurationError(
            f"encoder.family: {family!r} comes from two packages: {', '.join(map(_package, points))}",
            "uninstall one of them",
        )
    try:
        found: Describe = points[0].load()
    except Exception as error:  # of another package's code
        raise ConfigurationError(
            f"encoder.family: {family!r} of the package {_package(points[0])} can't be imported: "
            f"{type(error).__name__}: {error}",
            "install that package with all it needs, or use another family",
        ) from error
    return found


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value
