"""What an `Index` tells: the commands that look at what a configuration has made and change nothing of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.doctor import Diagnosis
    from pipelines.explore.explorer import Explorer
    from pipelines.export import Exported
    from pipelines.steps.results.finding import Finding
    from schemas.alias_status import Status
    from schemas.config import Config
    from schemas.run_report import Report

# Commands are imported when they are called: a process that only searches loads no Beam.


class IndexInspection(ABC):
    """The commands that look, for one configuration."""

    @property
    @abstractmethod
    def config(self) -> Config:
        """The configuration as it is now."""

    @property
    def explore(self) -> Explorer:
        """What the vectors tell: `index.explore.duplicates(above=0.95).table`, and the other commands of explore."""
        from pipelines.explore.explorer import Explorer

        return Explorer(lambda: self.config)

    def evaluate(self, **options: Any) -> Finding:
        """How good the answers to queries with known answers are; see `pipelines.evaluate.evaluate`."""
        from pipelines.evaluate import evaluate

        return evaluate(self.config, **options)

    def compare(self, old: Config | str | Path = "", new: Config | str | Path = "", **options: Any) -> Finding:
        """How the answers of two collections of this index differ, without labels; see `pipelines.compare.compare`.

        Args:
            old, new: names of collections; or other configurations, also by their files, whose names end in .yaml or
                .yml. Without both, what `rollback` goes to is compared with what is served.
        """
        from pipelines.compare import compare

        return compare(_side(old), _side(new), **{"configs": [self.config]} | options)

    def train(self, pairs: str | Path, out: str | Path, **options: Any) -> Finding:
        """Trains a model on pairs, from the encoder of this index; see `pipelines.train.train`.

        The index does not use it before its configuration names it, and `reindex` ran.
        """
        from pipelines.train import train

        return train(pairs, out, None if options.get("model") else self.config, **options)

    def status(self) -> Status:
        """What is served, what the checkpoint has, and the last run; see `pipelines.status`."""
        from pipelines.status import status

        return status(self.config)

    def doctor(self, *, offline: bool = False) -> Diagnosis:
        """Whether packages, machine, models, runner, store and Milvus are ready for a run; see `pipelines.doctor`."""
        from pipelines.doctor import doctor

        return doctor(self.config, offline=offline)

    def report(self, run_id: str | None = None, *, html: str | Path | None = None) -> Report:
        """What a run did, by default the last one that could change data; see `pipelines.report.report`.

        Args:
            html: a file for a page of it, with the history of the runs.
        """
        from pipelines.report import report

        return report(self.config, run_id, html=html)

    def export(self, path: str | Path, **options: Any) -> Exported:
        """Writes the live rows as a file, or for TensorBoard; see `pipelines.export` for the options."""
        from pipelines.export import export

        return export(self.config, path, **options)

    def serve(self, *, ready: Callable[[str], None] = print, **options: Any) -> None:
        """Serves a page to search the collection and to look at it, until Ctrl-C; see `pipelines.serve.serve`.

        Args:
            ready: called with the address of the page once it answers.
        """
        from pipelines.serve import serve

        serve(self.config, ready=ready, **options)


def _side(named: Config | str | Path) -> Config | str:
    """The configuration of a file, or the name of a collection."""
    from schemas.config.loader import as_config

    if isinstance(named, (str, Path)):
        return as_config(str(named)) if Path(named).suffix.lower() in (".yaml", ".yml") else str(named)
    return named
