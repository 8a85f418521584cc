"""Configurations that `vecbeam init` proposes, and what a run would read with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from corpora import text

from pipelines.init import Proposal, write_configuration
from schemas.config import Config
from schemas.config.loader import load_config
from transforms.read import list_corpus, plan_shards, read_shard

FAKE = ("encoder={model: fake, dimensions: 8}",)


class Made(NamedTuple):
    found: Proposal
    config: Config
    items: list[dict[str, Any]]
    rejects: list[dict[str, Any]]

    @property
    def files(self) -> set[str]:
        return {file.uri.rsplit("/", 1)[-1] for file in list_corpus(self.config.corpus)}

    @property
    def why(self) -> dict[str, str]:
        return {path: why for why, paths in self.found.left_out.items() for path in paths}


def init(*paths: str, output: str = "vecbeam.yaml", name: str | None = None) -> Made:
    """Writes a configuration, loads it, and reads all that it names."""
    found = write_configuration(list(paths), Path(output), name)
    config = load_config(output, FAKE)
    items, rejects = [], []
    for shard in plan_shards(list_corpus(config.corpus), config.corpus):
        for batch in read_shard(shard, config.corpus, batch_rows=1000):
            items += batch.items.to_pylist()
            rejects += batch.rejects.to_pylist()
    return Made(found, config, items, rejects)


def records(count: int = 30, **more: Any) -> list[dict[str, Any]]:
    return [{"id": f"r{number}", "text": text(number), **more} for number in range(count)]
