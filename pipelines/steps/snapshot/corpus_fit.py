"""Fits models on a sample of the corpus, and keeps them in the checkpoint."""

from __future__ import annotations

import time
from collections.abc import Mapping

from pipelines.run.session import Phase, Session
from pipelines.steps.corpus.changes import find_changes
from pipelines.steps.corpus.source import Source, with_models
from pipelines.steps.judgement.forecast import first_rejects, foreseen_rejects
from pipelines.steps.judgement.limits import check_fields
from schemas.errors import RejectsError
from schemas.run_report import Fit
from transforms.encoders.fitted.term_model import TermModel
from transforms.read import plan_shards, read_shard
from transforms.read.item_sample import ItemSample
from transforms.support import stop
from transforms.support.tidying import tidied


def fitted_source(session: Session, source: Source) -> Source:
    """The same source, after the models that are not fitted yet were fitted on it.

    A run that is killed in here, or later before its snapshot, has left at most whole models, which the same command
    finds.

    Raises:
        ConfigurationError: if the corpus does not have enough items or terms for a model.
        RejectsError: if it has no item.
        MissingExtraError: if a library is not installed.
    """
    models = source.models.to_fit
    if not models:
        return source
    for model in models.values():
        model.check_fit()
    with Phase(session, "survey"):
        session.progress.step("fit")
        samples = _read(session, source, models)
        fitted: dict[str, TermModel] = {}
        for name, model in models.items():
            texts = samples[model.sample_of].texts
            if not texts:
                raise _no_item(session, source, model)
            start = time.perf_counter()
            one = model.fit(texts)
            fitted[name] = one.kept_in(source.checkpoint.root)
            facts = {"items": len(texts), "terms": len(one.terms), "dimensions": one.dimensions}
            seconds = round(time.perf_counter() - start, 3)
            session.report.fits.append(Fit(vector=name, model=model.name, **facts, seconds=seconds))
            session.progress.note(f"fitted {model.name} on {len(texts):,} items")
    source = with_models(source, session.config, source.models.with_fitted(fitted))
    session.report.space = source.models.space.id
    return source


def _read(session: Session, source: Source, models: Mapping[str, TermModel]) -> dict[tuple[int, int], ItemSample]:
    samples = {model.sample_of: ItemSample(*model.sample_of) for model in models.values()}
    corpus = session.config.corpus
    for shard in plan_shards(source.listed, corpus):
        for batch in read_shard(shard, corpus, batch_rows=session.config.batch_rows):
            stop.check()
            for sample in samples.values():
                sample.add(batch.items)
    return samples


def _no_item(session: Session, source: Source, model: TermModel) -> Exception:
    changes = find_changes(session, source, None, session.uri("diff"), survey=True)
    with tidied(changes.findings.remove):
        session.report.rejects, session.report.rejected = foreseen_rejects(changes), first_rejects(changes)
        check_fields(changes, session.config)
    return RejectsError(
        f"the corpus holds no item, so that {model.name} can't be fitted on it",
        "check that the files which corpus.paths matches hold records with text; vecbeam plan lists the rejects",
    )
