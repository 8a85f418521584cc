"""Whether the files of the models are on this machine, and define a space."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.steps.diagnosis.check import Check, fail, ok, skipped, warn
from schemas.config import Config
from schemas.config.encoder import VECTOR
from schemas.errors import VecbeamError
from transforms.encoders import hub, resolve
from transforms.encoders.base import Model
from transforms.encoders.fitted.term_model import TermModel
from transforms.encoders.models import naming


def check_models(config: Config, *, offline: bool) -> Iterator[Check]:
    """One check for each vector; no weights are loaded, and nothing is fetched."""
    for vector, encoder in config.vectors.items():
        name = "model" if vector == VECTOR else f"model of {vector}"
        if encoder.is_remote and offline:
            yield skipped(name, f"{encoder.model} is a server, and --offline is set")
            continue
        try:
            with hub.offline(), naming(config, vector):
                model = resolve(encoder)
        except hub.NotHereError as error:
            if offline:
                yield fail(name, error.message, error.remedy)
            else:
                yield warn(name, f"{error.message}; the next run fetches them", "check the network, and HF_TOKEN")
        except VecbeamError as error:
            yield fail(name, error.message, error.remedy)
        else:
            yield ok(name, _facts(model, encoder.model))


def _facts(model: Model, name: str) -> str:
    if isinstance(model, TermModel) and model.needs_fit:
        return f"{name}, which the first run fits on the corpus"
    return f"{name}, {model.dimensions} dimensions, space {model.space.id}"
