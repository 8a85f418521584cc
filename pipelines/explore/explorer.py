"""`vecbeam explore` as a Python object: `Index.explore`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.steps.results.finding import Finding
    from schemas.config import Config


class Explorer:
    """What the vectors of an index tell: one method for each command of `vecbeam explore`, with its options.

    Args:
        configuration: gives the configuration as it is now.
    """

    def __init__(self, configuration: Callable[[], Config]) -> None:
        self._configuration = configuration

    def duplicates(self, **options: Any) -> Finding:
        """Rows, or items, that are nearly the same; see `pipelines.explore.duplicates.duplicates`."""
        from pipelines.explore.duplicates import duplicates

        return duplicates(self._configuration(), **options)

    def outliers(self, **options: Any) -> Finding:
        """Rows that are unusually far from all others; see `pipelines.explore.outliers.outliers`."""
        from pipelines.explore.outliers import outliers

        return outliers(self._configuration(), **options)

    def clusters(self, **options: Any) -> Finding:
        """Groups of similar rows, with names; see `pipelines.explore.clusters.clusters`."""
        from pipelines.explore.clusters import clusters

        return clusters(self._configuration(), **options)

    def similar(self, *words: str, **options: Any) -> Finding:
        """The similarity of some rows and texts, each with each; see `pipelines.explore.similar.similar`."""
        from pipelines.explore.similar import similar

        return similar(self._configuration(), words, **options)

    def map(self, **options: Any) -> Finding:
        """The rows as points of a plane; see `pipelines.explore.map.map_rows`."""
        from pipelines.explore.map import map_rows

        return map_rows(self._configuration(), **options)

    def labels(self, *labels: str, **options: Any) -> Finding:
        """The label of each row, by texts of labels or by examples; see `pipelines.explore.labels.labels`."""
        from pipelines.explore import labels as found

        return found.labels(self._configuration(), labels, **options)

    def drift(self, **options: Any) -> Finding:
        """Whether new rows are unlike the earlier ones; see `pipelines.explore.drift.drift`.

        `against` is the path of a configuration, or one.
        """
        from pipelines.explore.drift import drift
        from schemas.config import Config
        from schemas.config.loader import load_config

        against = options.pop("against", None)
        other = against if against is None or isinstance(against, Config) else load_config(against)
        return drift(self._configuration(), against=other, **options)
