"""The limits of `verify` on vectors: whether they can be measured, and in words."""

from __future__ import annotations

from schemas.config import Config
from schemas.config.collection import Verify
from schemas.errors import ConfigurationError
from schemas.layout import Layout, VectorKind
from transforms.support.extras import need


def limits_of(verify: Verify) -> list[str]:
    """The keys of the limits that are set."""
    return [name for name in ("max_duplicates", "max_outliers", "max_drift") if getattr(verify, name) is not None]


def check_limits(config: Config, layout: Layout) -> None:
    """Refuses limits that can't be measured, before the corpus is read.

    Raises:
        ConfigurationError: if the rows have no dense vector.
        MissingExtraError: if the extra `explore` is not installed.
    """
    limits = limits_of(config.verify)
    if not limits:
        return
    if not any(one.kind is VectorKind.DENSE for one in layout.vectors):
        raise ConfigurationError(
            f"verify.{limits[0]} is measured with dense vectors, and the rows have none", f"remove verify.{limits[0]}"
        )
    need("explore", f"verify.{limits[0]}", "faiss", "scipy", "sklearn")


def limit_words(config: Config) -> str:
    """What the vectors must keep, in words; "" without limits."""
    verify = config.verify
    words = []
    if verify.max_duplicates is not None:
        words.append(
            f"near duplicates (cosine of {verify.duplicates_above} or more) at most {verify.max_duplicates:.2%} of rows"
        )
    if verify.max_outliers is not None:
        words.append(f"outliers at most {verify.max_outliers:.2%}")
    if verify.max_drift is not None:
        words.append(f"AUC of new rows against the served ones at most {verify.max_drift}")
    return f"the vectors are compared first: {', '.join(words)}" if words else ""
