"""Trains a text model of sentence-transformers on pairs, with that library's own trainer.

The loss is multiple negatives ranking: Henderson et al., Efficient Natural Language Response Suggestion for Smart
Reply, 2017. The other positives of a batch are the negatives of a query; no batch has a text or a label twice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.errors import EncoderError
from transforms.encoders.router import DOCUMENT, QUERY, RouterModel
from transforms.encoders.sentence_transformers import SentenceTransformersModel
from transforms.encoders.static_embedding import StaticModel
from transforms.encoders.text_facts import TextFacts
from transforms.quality.retrieval_measures import FIRST, MEASURES, measure
from transforms.support.extras import is_installed, need
from transforms.train.hard_negatives import MinedTable, NegativeSource
from transforms.train.step_counter import step_counter
from transforms.train.training_pairs import Pair, same

PACKAGES = ("torch", "sentence_transformers", "datasets", "accelerate")
TrainableModel = SentenceTransformersModel | StaticModel | RouterModel
_RANKED = 100
_QUERIES_AT_ONCE = 256
_ROUTES = {"query": QUERY, "positive": DOCUMENT, "negative": DOCUMENT}


class TrainingSettings(NamedTuple):
    """How to train.

    Attributes:
        batch: pairs of a step.
        hard_negatives: texts that are mined for each pair without a negative.
        two_towers: queries get weights of their own.
    """

    epochs: int = 1
    batch: int = 32
    learning_rate: float = 2e-5
    hard_negatives: int = 0
    seed: int = 0
    two_towers: bool = False


def check_training() -> None:
    """Raises MissingExtraError unless the extra `train` is installed."""
    need("train", "vecbeam train", *PACKAGES)


def load(folder: Path, model: TrainableModel) -> Any:
    """The model of a folder as sentence-transformers loads it; no code that comes with a model is run."""
    if is_installed("torchvision"):
        from transforms.encoders.engines.torch.torchvision_operators import make_importable

        make_importable()
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    loaded = SentenceTransformer(str(folder), local_files_only=True, trust_remote_code=False)
    if isinstance(model, RouterModel):
        routes = loaded[0].sub_modules
        towers = [(routes[DOCUMENT][0], model.documents), (routes[QUERY][0], model.queries)]
    else:
        towers = [(loaded, model)]
    for module, described in towers:
        if isinstance(module.max_seq_length, int):  # a static model has no limit of its own
            module.max_seq_length = described.facts.max_tokens
    return loaded


def with_two_towers(model: Any) -> Any:
    """The model with a copy of its weights for queries; the model itself if it has two towers."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    if isinstance(model[0], Router):
        return model
    documents = list(model.children())
    router = Router.for_query_document([deepcopy(module) for module in documents], documents)
    return SentenceTransformer(
        modules=[router],
        device=model.device,
        prompts=model.prompts,
        similarity_fn_name=model.similarity_fn_name,
    )


def scores(model: Any, facts: TextFacts, held_out: Sequence[Pair], candidates: Sequence[str]) -> NDArray[np.float64]:
    """nDCG@10 of each held-out query, as float64[queries], in the order in which they come first.

    The ranking is exact, by the cosine. The positives of a query are relevant with grade 1; the query itself is not
    ranked.

    Args:
        candidates: the texts to rank, each once.
    """
    queries: dict[str, str] = {}
    truth: dict[str, dict[str, int]] = {}
    numbers = {same(text): str(number) for number, text in enumerate(candidates)}
    for pair in held_out:
        name = same(pair.query)
        queries.setdefault(name, pair.query)
        truth.setdefault(name, {})[numbers[same(pair.positive)]] = 1
    matrix = _vectors(model, candidates, facts.prompt, DOCUMENT)
    asking = _vectors(model, list(queries.values()), facts.query_prompt, QUERY)
    rankings: dict[str, list[str]] = {}
    names = list(queries)
    for start in range(0, len(names), _QUERIES_AT_ONCE):
        near = asking[start : start + _QUERIES_AT_ONCE] @ matrix.T
        # A stable order, so that equal texts keep their places.
        order = np.argsort(-near, axis=1, kind="stable")[:, : _RANKED + 1]
        for name, row in zip(names[start:], order, strict=False):
            rankings[name] = [str(one) for one in row if str(one) != numbers.get(name)][:_RANKED]
    return measure(truth, rankings)[:, list(MEASURES).index(FIRST)]


def negatives_of(model: Any, facts: TextFacts, texts: Sequence[str]) -> NegativeSource:
    """Some texts of a file of pairs, as what negatives are mined from."""

    def tables() -> Iterator[MinedTable]:
        yield MinedTable(texts, texts, vectors)

    vectors = _vectors(model, texts, facts.prompt, DOCUMENT)
    return NegativeSource(
        "pairs",
        lambda queries: _vectors(model, queries, facts.query_prompt, QUERY),
        lambda positives: _vectors(model, positives, facts.prompt, DOCUMENT),
        tables,
    )


def train(
    model: Any,
    facts: TextFacts,
    pairs: Sequence[Pair],
    settings: TrainingSettings,
    labels: Mapping[str, str] | None = None,
    begun: Callable[[int], None] | None = None,
) -> Mapping[str, Any]:
    """Trains the model in place; the same pairs, settings and machine give the same weights.

    Args:
        labels: of labelled texts, the label of each query. A step then has one pair of a label at most, as the
            positives of the other pairs are its negatives.
        begun: is called with the number of steps before the first one; `step_counter` counts them.

    Returns:
        Figures: `steps`, and `loss` (of the whole training, the mean).

    Raises:
        EncoderError: if the loss is not finite.
    """
    check_training()
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import PrinterCallback, set_seed

    set_seed(settings.seed)
    # Columns of a data set are whole: pairs without a negative are a data set of their own.
    parts = {"pairs": [one for one in pairs if not one.negative], "triplets": [one for one in pairs if one.negative]}
    codes = {label: code for code, label in enumerate(dict.fromkeys((labels or {}).values()))}
    sets = {
        name: Dataset.from_list(
            [
                {key: text for key, text in one._asdict().items() if text}
                | ({"label": codes[labels[one.query]]} if labels else {})
                for one in part
            ]
        )
        for name, part in parts.items()
        if part
    }
    batch = min(settings.batch, len({labels[one.query] for one in pairs})) if labels else settings.batch
    prompts = {"query": facts.query_prompt, "positive": facts.prompt, "negative": facts.prompt}
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=batch,
            learning_rate=settings.learning_rate,
            warmup_steps=0.1,
            batch_sampler=_batches,
            prompts={key: text for key, text in prompts.items() if text} or None,
            seed=settings.seed,
            router_mapping=_ROUTES if isinstance(model[0], Router) else {},
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        # The library makes examples for a model card, which is not written, and draws a bar over the progress.
        model.model_card_data.widget = [{}]
        loss = MultipleNegativesRankingLoss(model)
        trainer = SentenceTransformerTrainer(
            model=model, args=arguments, train_dataset=sets if len(sets) > 1 else next(iter(sets.values())), loss=loss
        )
        trainer.remove_callback(PrinterCallback)  # standard output is for the result of the command
        trainer.add_callback(step_counter(begun))
        done = trainer.train()
    if not np.isfinite(done.training_loss):
        raise EncoderError(f"the loss of the training is {done.training_loss}", "lower --learning-rate")
    model.eval()
    return {"steps": int(done.global_step), "loss": round(float(done.training_loss), 6)}


def _batches(dataset: Any, **options: Any) -> Any:
    """Batches without a text or a label twice: the library's own sampler, to which a label is a value as any other."""
    from sentence_transformers.base.sampler import NoDuplicatesBatchSampler

    return NoDuplicatesBatchSampler(dataset, **options | {"valid_label_columns": None})


def _vectors(model: Any, texts: Sequence[str], prompt: str, task: str) -> NDArray[np.float32]:
    found = model.encode(list(texts), prompt=prompt, task=task, normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(found, np.float32)
