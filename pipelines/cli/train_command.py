"""The command `vecbeam train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.run.terminal.arguments import CONFIGURATION, ENVIRONMENT, configuration, refuse_given
from pipelines.run.terminal.command import Overrides, Page, command

if TYPE_CHECKING:
    from pipelines.run.progress import Progress

training = typer.Typer(rich_markup_mode=None)

OF_PAIRS: tuple[str, ...] = (
    "model",
    "revision",
    "vector",
    "held_out",
    "batch",
    "learning_rate",
    "hard_negatives",
    "negatives_from",
)
OF_PAIRS += ("two_towers", "even_if_not_better", "set_")
"""Parameters that train a model of texts or images, not item vectors."""


@command(training)
def train(
    context: typer.Context,
    pairs: Annotated[
        str, typer.Argument(metavar="PAIRS", help="JSON lines of pairs, of texts with images, or of labelled texts.")
    ] = "",
    path: Annotated[
        Path, typer.Argument(metavar="CONFIG", envvar=ENVIRONMENT, help="The configuration of the base model.")
    ] = CONFIGURATION,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER|FILE.vec", help="What to write; it must not exist yet.")
    ] = None,
    histories: Annotated[
        str, typer.Option("--histories", metavar="FILE", help="Item vectors of baskets or sessions, instead of PAIRS.")
    ] = "",
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="The base, instead of CONFIG; static: words of one's own.")
    ] = "",
    revision: Annotated[str | None, typer.Option("--revision", help="Of --model, for a hub id.")] = None,
    vector: Annotated[str, typer.Option("--vector", metavar="NAME", help="By default the first one.")] = "",
    held_out: Annotated[float, typer.Option("--held-out", help="The share of queries that is held out.")] = 0.2,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="How often each pair (1; of static 20) or history (20) is seen.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", help="Pairs of a step.")] = 32,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="At its highest: 2e-5, of static 0.05.")
    ] = None,
    hard_negatives: Annotated[
        int, typer.Option("--hard-negatives", help="Mined for each pair without a negative.")
    ] = 0,
    negatives_from: Annotated[
        str, typer.Option("--negatives-from", metavar="CONFIG|pairs", help="Whose rows are mined; by default CONFIG's.")
    ] = "",
    two_towers: Annotated[bool, typer.Option("--two-towers", help="Queries get weights of their own.")] = False,
    even_if_not_better: Annotated[
        bool, typer.Option("--even-if-not-better", help="Writes the model whatever the figures are.")
    ] = False,
    dimensions: Annotated[int, typer.Option("--dimensions", help="Of item vectors, and of static.")] = 64,
    least: Annotated[int, typer.Option("--least", help="Items in fewer histories get no vector.")] = 2,
    seed: Annotated[int, typer.Option("--seed", min=0, help="By which the held-out part and the order are drawn.")] = 0,
    set_: Overrides = None,
    *,
    progress: "Progress",
) -> Page:
    """Trains a model on pairs, or item vectors on histories."""
    from pipelines.train import DEFAULT, OWN_WORDS, check_words, train, train_items
    from transforms.train.own_words import NAME
    from transforms.train.text_training import TrainingSettings

    check_words(pairs, histories, out)
    assert out is not None
    if histories:
        refuse_given(context, OF_PAIRS, "--histories trains item vectors without a model")
        with progress:
            made = train_items(
                histories,
                out,
                dimensions=dimensions,
                epochs=20 if epochs is None else epochs,
                least=least,
                seed=seed,
                progress=progress,
            )
        return Page(made.as_json(), made.text(), made.line())
    refuse_given(context, ["least"], "it is for --histories")
    if model != NAME:
        refuse_given(context, ["dimensions"], f"the model has its own; it is for --histories and --model {NAME}")
    if not model or model == NAME:
        refuse_given(context, ["revision"], "it is for a --model of the hub")
    if model:
        refuse_given(context, ["path"], "--model names the base; --negatives-from CONFIG names rows to mine")
    usual = OWN_WORDS if model == NAME else DEFAULT
    with progress:
        found = train(
            pairs,
            out,
            None if model else configuration(path, set_),
            model=model,
            revision=revision,
            vector=vector,
            held_out=held_out,
            settings=TrainingSettings(
                usual.epochs if epochs is None else epochs,
                batch,
                usual.learning_rate if learning_rate is None else learning_rate,
                hard_negatives,
                seed,
                two_towers,
            ),
            even_if_not_better=even_if_not_better,
            dimensions=dimensions,
            negatives_from=negatives_from or None,
            progress=progress,
        )
    return Page(found.as_json(), found.text(), found.line())
