"""A report as text: as a page, and in one line."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.modality import shown_rate
from schemas.run_report import LOAD_AND_VERIFY, Quality, RemoteJob, Report, VectorFindings, Verification

_RESULTS = {
    0: "done",
    1: "failed",
    2: "refused",
    3: "gate not passed",
    4: "over a limit",
    130: "stopped",
}


def text(report: Report, *, with_error: bool = True) -> str:
    """Returns the report as text: what the run did, without the steps that it did not reach.

    Args:
        with_error: includes error and remedy; false if the command line shows both already.
    """
    head = f"{report.command} {report.run_id}"
    if report.error is not None or report.exit_code:
        head += f": {result(report)}"
    lines = [head]
    if report.error is not None and with_error:
        lines.append(f"error     {report.error.kind}: {report.error.message}")
        if report.error.remedy:
            lines.append(f"remedy    {report.error.remedy}")
    if report.reason:
        lines.append(f"{'removed' if report.command == 'gc' else 'changed':<10}{report.reason}")
    lines += [*_corpus(report), *_work(report), *_check(report)]
    if serving := _serving(report):
        lines.append(f"serving   {serving}")
    lines.append(f"seconds   {_seconds(report)}")
    lines += [*_encoder(report), f"memory    {report.peak_rss_mb:,} MB peak"]
    lines += [f"job       {left(job)}" for job in report.remote_jobs if job.left]
    if report.retries:
        slowed = f"; Milvus throttled {report.throttled} calls" if report.throttled else ""
        lines.append(f"retries   {report.retries}{slowed}")
    lines += [f"warning   {warning}" for warning in report.warnings]
    return "\n".join(lines)


def result(report: Report) -> str:
    """How a run ended, in a few words, with its exit code if that is not 0."""
    if report.exit_code == 0:
        return "done"
    shown = _RESULTS.get(report.exit_code, "failed")
    return f"{shown}, exit code {report.exit_code}"


def _corpus(report: Report) -> Iterator[str]:
    items, rejected = report.items, report.rejected
    if items.read or items.deleted:
        yield (
            f"items     {items.read:,} read = {items.new:,} new + {items.changed:,} changed "
            f"+ {items.moved:,} moved + {items.unchanged:,} unchanged + {items.rejected:,} rejected"
            + (f"; {items.deleted:,} {deleted_words(report)}" if items.deleted else "")
        )
    if report.rejects:
        yield "rejects   " + ", ".join(f"{count:,} {error}" for error, count in report.rejects.items())
        yield from (f"          {reject}" for reject in rejected[:NAMED])
        if rejected and (more := sum(report.rejects.values()) - len(rejected[:NAMED])) > 0:
            yield f"          and {more:,} more: vecbeam report --rejects"


def deleted_words(report: Report) -> str:
    """Words for the deletions: a refused run did not make them."""
    return "deleted" if report.error is None or report.chunks.deleted or _moved(report) else "to delete, none deleted"


def _moved(report: Report) -> bool:
    return report.served is not None and report.served.moved


def _work(report: Report) -> Iterator[str]:
    chunks, tokens, plan = report.chunks, report.tokens, report.plan
    if plan is not None and (plan.tokens or plan.chunks):
        seconds = plan.embed_seconds
        expected = "" if seconds is None else f" in {seconds:,.1f} s"
        amount = f", {plan.tokens // report.modality.per_unit:,} {report.modality.unit}" if plan.tokens else ""
        yield f"expected  {plan.chunks:,} chunks{amount}{expected}"
    done = {"embedded": chunks.embedded, "reused": chunks.reused, "loaded": chunks.loaded, "deleted": chunks.deleted}
    done["cut to the encoder's limit"] = chunks.cut
    if any(done.values()):
        yield "chunks    " + ", ".join(f"{count:,} {what}" for what, count in done.items() if count)
    if tokens.embedded:
        yield f"tokens    {tokens.embedded:,} embedded, {tokens.padded:,} padding, {tokens.dropped:,} dropped"
        if tokens.billed:
            cost = "" if report.usd is None else f", {report.usd:,.2f} USD"
            yield f"billed    {tokens.billed:,} tokens by the embedding server{cost}"
    elif tokens.dropped:
        yield f"tokens    {tokens.dropped:,} dropped"
    if report.sound is not None:
        yield f"seconds   {report.sound.embedded:,.1f} embedded, {report.sound.dropped:,.1f} dropped"


def _check(report: Report) -> Iterator[str]:
    verify = report.verify
    if report.vectors is not None:
        yield f"vectors   {_vectors(report.vectors)}"
    if report.quality is not None:
        yield f"answers   {_answers(report.quality)}"
    if not (verify.expected or verify.found):
        return
    if not verify.compared and report.format_version > 1 and verify.found == verify.expected:
        # Nothing checked whether rows are missing.
        yield f"verify    {verify.found:,} rows of {verify.expected:,}, only counted"
        return
    recall = "" if verify.recall_at_10 is None else f", recall@10 {verify.recall_at_10:.4f}"
    yield (
        f"verify    {verify.found:,} rows of {verify.expected:,}, {verify.missing} missing, "
        f"{verify.unexpected} unexpected, {verify.stale} stale, {verify.damaged} damaged{_compared(verify)}{recall}"
    )
    if verify.promise:
        yield f"promise   recall@10 of unseen queries {verify.promise}"


def _vectors(found: VectorFindings) -> str:
    shown = []
    if found.duplicates is not None:
        shown.append(f"{found.duplicates:.2%} near duplicates")
    if found.outliers is not None:
        shown.append(f"{found.outliers:.2%} outliers")
    if found.drift is not None:
        shown.append(
            f"drift of {found.new_items:,} new items: AUC {found.drift:.3f} ({found.drift_low:.3f} to "
            f"{found.drift_high:.3f})"
        )
    if found.reason:
        shown.append(f"drift not measured: {found.reason}")
    sampled = f" in {found.rows_seen:,} of {found.rows:,} rows" if 0 < found.rows_seen < found.rows else ""
    return ", ".join(shown) + sampled


def _answers(found: Quality) -> str:
    shown = f"nDCG@10 {found.ndcg_at_10:.4f} with {found.queries:,} queries"
    if found.low is not None and found.high is not None:
        shown += f" ({found.low:.4f} to {found.high:.4f})"
    if found.difference is not None:
        shown += f", {found.difference:+.4f} against what is served ({found.won:,} won, {found.lost:,} lost)"
    return f"{shown}: {found.verdict}" if found.verdict else shown


def left(job: RemoteJob) -> str:
    """Words for a job that runs on after the command."""
    return f"{job.id} of runner {job.runner} runs on: the same command attaches to it, or continues after it"


def _serving(report: Report) -> str:
    """What is served now, and what was not changed; "" where neither is known."""
    served = report.served
    if served is None:
        if report.format_version > 1 or not (report.verify.published and report.collection and not report.error):
            return ""
        return f"{report.alias} -> {report.collection}, space {report.space or '-'}"
    if not served.collection:
        return f"nothing under {report.alias}" + (", as before" if report.error else "")
    found = f"{report.alias} -> {served.collection}"
    if served.moved:
        found += f", before that {served.before}" if served.before else ""
    elif report.error is not None:
        found += ", as before; " + ("its rows were not changed" if _left_alone(report) else _PARTLY)
    if report.space and served.collection == report.collection:
        found += f", space {report.space}"
    return found


_PARTLY = "some of its rows may have been written"


def _left_alone(report: Report) -> bool:
    """Whether the run wrote nothing into the collection that is served."""
    if report.served is None or report.collection != report.served.collection:
        return True
    return not (
        report.chunks.loaded or report.chunks.deleted or {"load", "import", LOAD_AND_VERIFY} & set(report.steps)
    )


def _encoder(report: Report) -> Iterator[str]:
    if report.rates.tokens_per_second or report.rates.per_second:
        rates, runtime = report.rates, report.runtime
        engine = " ".join(runtime[key] for key in ("engine", "precision", "device") if key in runtime)
        rate = f"{shown_rate(rates.per_second or rates.tokens_per_second)} {report.modality.unit}/s"
        yield (
            f"encoder   {rate} on {engine or '-'}, "
            + (f"{rates.padding_share:.1%} padding, " if rates.padding_share else "")
            + f"busy {rates.encoder_busy_share:.0%} of the embed step"
        )
    for fit in report.fits:
        yield (
            f"fit       {fit.model} on {fit.items:,} items in {fit.seconds:.1f} s: {fit.terms:,} terms, "
            f"{fit.dimensions:,} dimensions"
        )
    if report.loss is not None:
        loss = report.loss
        yield (
            f"int8      keeps {loss.neighbours_kept:.1%} of the ten nearest among {loss.texts} texts, "
            f"cosine to float32 {loss.cosine_mean:.4f} on average, {loss.cosine_min:.4f} at worst"
        )


def line(report: Report) -> str:
    """Returns the report in one line, with what was done; "" if that is nothing. `--quiet` prints it."""
    items, chunks, verify = report.items, report.chunks, report.verify
    counted = {
        "items": (("read", items.read), ("new", items.new), ("changed", items.changed), ("moved", items.moved)),
        "": ((deleted_words(report), items.deleted), ("rejected", items.rejected)),
        "chunks": (("embedded", chunks.embedded), ("reused", chunks.reused), ("loaded", chunks.loaded)),
    }
    said = {name: ", ".join(f"{count:,} {what}" for what, count in of if count) for name, of in counted.items()}
    parts = [", ".join(part for part in (said["items"], said[""]) if part)]
    parts = [*([report.reason] if report.reason else []), *(f"items {part}" for part in parts if part)]
    if report.rejects:
        parts.append("rejects " + ", ".join(f"{count:,} {error}" for error, count in report.rejects.items()))
    if said["chunks"]:
        parts.append(f"chunks {said['chunks']}")
    if verify.expected or verify.found:
        recall = "" if verify.recall_at_10 is None else f", recall@10 {verify.recall_at_10:.4f}"
        parts.append(f"verify {verify.found:,} rows of {verify.expected:,}{recall}")
    if report.quality is not None:
        parts.append(f"answers nDCG@10 {report.quality.ndcg_at_10:.4f}")
    if report.collection and report.exit_code == 0:
        parts.append(f"serving {report.alias} -> {report.collection}")
    parts += [f"job {left(job)}" for job in report.remote_jobs if job.left]
    parts += [f"warning {warning}" for warning in report.warnings]
    if not parts and report.exit_code:
        return ""
    return f"{report.command}: {'; '.join(parts) or 'nothing to do'}"


def _compared(verify: Verification) -> str:
    """What was compared, in brackets."""
    words = {"sampled": "all columns of a sample compared"}
    return f" ({words.get(verify.compared, verify.compared + ' compared')})" if verify.compared else ""


def _seconds(report: Report) -> str:
    spent = report.seconds.model_dump()
    total = spent.pop("total")
    parts = [f"{step} {value:.1f} ({value / max(total, 1e-9):.0%})" for step, value in spent.items() if value >= 0.05]
    return f"{total:.1f} total" + (f": {', '.join(parts)}" if parts else "")


NAMED = 5
"""How many rejects a run shows on the terminal."""
