"""Pages as pictures by late interaction: vectors of patches against the library's own, and runs that rank by them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpora import configure, write_jsonl
from drawings import drawing, encoded, write_drawings
from encoder_checks import Saved, made_once
from media_models import save_image_text
from page_models import DIMENSIONS, save_page_model
from PIL import Image
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.index import Index
from pipelines.plan import plan
from pipelines.reindex import reindex
from pipelines.search import find, search
from pipelines.steps.search.hits.reranking import matrices
from pipelines.steps.search.queries.query import LikeQuery, MediaQuery
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.config import Config, EncoderConfig
from schemas.errors import ConfigurationError, EncoderError, SpaceMismatchError
from schemas.layout import VectorKind
from transforms import milvus
from transforms.encoders import resolve, text_inputs
from transforms.encoders.base import media_inputs

pytest.importorskip("transformers", reason="the extra image is not installed")

KINDS = ("colpali", "colqwen2", "colmodernvbert")
SIZES = [(96, 80), (40, 120), (96, 80), (200, 60), (64, 64), (40, 120)]
QUERIES = ["red circle", "a", "the image of a blue square over a green circle"]
Matrices = list[np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    def save(folder: Path, kind: str) -> Path:
        return save_page_model(folder, kind) if kind in KINDS else save_image_text(folder, kind)

    return made_once(tmp_path_factory, save)


class Library:
    """A model by transformers itself, one input at a time."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForPreTraining, AutoProcessor

        self.processor = AutoProcessor.from_pretrained(folder, backend="pil")
        self._model = AutoModelForPreTraining.from_pretrained(folder).eval()

    def _vectors(self, inputs: Any) -> Any:
        import torch

        with torch.inference_mode():
            return self._model(**inputs).embeddings[0]

    def images(self, images: list[Image.Image]) -> list[Any]:
        return [self._vectors(self.processor.process_images(images=[image])) for image in images]

    def queries(self, texts: list[str]) -> list[Any]:
        return [self._vectors(self.processor.process_queries(text=[text])) for text in texts]

    def scores(self, query: str, images: list[Image.Image]) -> list[float]:
        """MaxSim by the library's own function."""
        found: list[float] = self.processor.score_retrieval(self.queries([query]), self.images(images))[0].tolist()
        return found


def assert_same(found: Matrices, expected: list[Any]) -> None:
    assert [one.shape for one in found] == [tuple(one.shape) for one in expected]
    for one, other in zip(found, map(np.asarray, expected), strict=True):
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        assert ((one * other).sum(axis=1) / lengths).min() >= 0.9999


def of_images(encoder: Any, images: list[Image.Image]) -> Matrices:
    return matrices(encoder.encode(media_inputs(map(encoded, images))).vectors, DIMENSIONS)


def of_queries(encoder: Any, texts: list[str]) -> Matrices:
    return matrices(encoder.encode(text_inputs(texts), query=True).vectors, DIMENSIONS)


@pytest.mark.parametrize("kind", KINDS)
def test_patches_and_queries_have_the_library_s_vectors_in_any_batch(saved: Saved, kind: str) -> None:
    model = resolve(EncoderConfig(model=str(saved(kind))))
    assert (model.kind, model.dimensions) == (VectorKind.MULTI, DIMENSIONS)
    encoder, theirs = model.load(), Library(saved(kind))
    images = [drawing(number, size) for number, size in enumerate(SIZES)]
    whole = of_images(encoder, images)
    assert_same(whole, theirs.images(images))
    assert not np.allclose(whole[0][:4], whole[2][:4], atol=1e-3) or kind != "colpali"
    order = [3, 0, 5, 2, 1, 4]
    assert_same(of_images(encoder, [images[at] for at in order]), [whole[at] for at in order])
    for at, image in enumerate(images):
        assert_same(of_images(encoder, [image]), [whole[at]])
    queries = of_queries(encoder, QUERIES)
    assert_same(queries, theirs.queries(QUERIES))
    assert_same(of_queries(encoder, QUERIES[::-1]), queries[::-1])
    assert_same(of_queries(encoder, QUERIES[1:2]), queries[1:2])


@pytest.mark.parametrize("kind", ["colpali", "colqwen2"])
def test_a_folder_of_the_sentence_transformers_library_is_the_same_space(
    tmp_path: Path, saved: Saved, kind: str
) -> None:
    from sentence_transformers import MultiVectorEncoder

    theirs = MultiVectorEncoder(
        str(saved(kind)), device="cpu", local_files_only=True, processor_kwargs={"backend": "pil"}
    )
    theirs.save_pretrained(str(tmp_path / "whole"))
    model = resolve(EncoderConfig(model=str(tmp_path / "whole")))
    assert model.space.facts["weights"] == resolve(EncoderConfig(model=str(saved(kind)))).space.facts["weights"]
    images = [drawing(number, size) for number, size in enumerate(SIZES)]
    encoder = model.load()
    assert_same(of_images(encoder, images), theirs.encode_document(images, convert_to_numpy=True))
    assert_same(of_queries(encoder, QUERIES), theirs.encode_query(QUERIES, convert_to_numpy=True))
    mask = tmp_path / "whole" / "1_MultiVectorMask" / "config.json"
    mask.write_text(json.dumps({**json.loads(mask.read_text()), "skiplist_words": ["a"]}))
    with pytest.raises(ConfigurationError, match="a MultiVectorMask that leaves vectors out"):
        resolve(EncoderConfig(model=str(tmp_path / "whole")))


def write_pdf(path: Path, numbers: list[int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = [drawing(number) for number in numbers]
    first.save(path, "PDF", save_all=True, append_images=others, resolution=72)
    return path


def pages(tmp_path: Path, saved: Saved, dpi: int = 72, kind: str = "colpali", **changes: Any) -> Config:
    encoders = {"page": {"model": str(saved("clip"))}, "late": {"model": str(saved(kind))}}
    keys: dict[str, Any] = {"corpus": {"paths": ["docs/*.pdf"], "pages": {"dpi": dpi}}, "encoders": encoders}
    return configure(tmp_path, **(keys | changes))


def drawn(path: Path, dpi: int = 72) -> list[Image.Image]:
    """The pages of a file by PDFium itself."""
    import pypdfium2

    document = pypdfium2.PdfDocument(path)
    found = [page.render(scale=dpi / 72).to_pil().convert("RGB") for page in document]
    document.close()
    return found


def test_pages_of_pdf_files_are_ranked_by_their_patches(tmp_path: Path, saved: Saved) -> None:
    pytest.importorskip("pypdfium2", reason="the extra documents is not installed")
    first = write_pdf(tmp_path / "docs" / "first.pdf", list(range(8)))
    second = write_pdf(tmp_path / "docs" / "second.pdf", [8, 9, 10, 11])
    (tmp_path / "docs" / "cut.pdf").write_bytes(first.read_bytes()[:200])
    config = pages(tmp_path, saved, verify={"max_rejected": 0.5})
    assert plan(config).chunks.value == 12
    report = backfill(config)
    assert (report.chunks.embedded, report.verify.found, report.verify.recall_at_10) == (12, 12, 1.0)
    assert report.rejects == {"InvalidPdf": 1}
    names = [f"first.pdf#{page}" for page in range(8)] + [f"second.pdf#{page}" for page in range(4)]
    images = [*drawn(first), *drawn(second)]
    theirs = Library(saved("colpali"))
    parts = tmp_path.glob("checkpoint/tested/*/parts/*.parquet")
    rows = {row["id"]: row for part in parts for row in pq.read_table(part).to_pylist()}
    assert_same([np.array(rows[name]["late"], np.float32) for name in names], theirs.images(images))
    with milvus.connected(config.collection) as connection:
        state = milvus.state(connection, milvus.served(connection, "tested") or "")
    assert state is not None
    assert "page" in {column.name for column in state.columns}
    assert "late" not in {column.name for column in state.columns}

    query = "red circle over a blue square"
    scores = dict(zip(names, theirs.scores(query, images), strict=True))
    best = sorted(scores, key=lambda name: -scores[name])
    found = find(config, query, k=12, rerank="late")
    assert (found.metric, [row["id"] for row in found.hits[0]]) == ("MaxSim", best)
    assert [row["score"] for row in found.hits[0]] == pytest.approx([scores[name] for name in best], abs=1e-4)
    # Of few candidates, only those that the first vector finds.
    three = {row["id"] for row in search(config, query, k=3)}
    few = search(config, query, k=3, rerank="late", candidates=3)
    assert [row["id"] for row in few] == [name for name in best if name in three]
    # A picture of a page finds the page: each of its vectors is its own best.
    picture = tmp_path / "picture.png"
    images[5].save(picture)
    [hit] = search(config, MediaQuery(str(picture)), k=1, rerank="late")
    assert (hit["id"], hit["score"]) == ("first.pdf#5", pytest.approx(len(rows["first.pdf#5"]["late"]), abs=1e-3))
    assert search(config, LikeQuery("first.pdf#5"), k=1, rerank="late")[0]["id"] != "first.pdf#5"
    arguments = ["search", str(tmp_path / "vecbeam.yaml"), query, "--rerank", "late", "-k", "2", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert [row["id"] for row in json.loads(done.stdout)["hits"]] == best[:2]

    # A page that changes, and one that goes.
    assert sync(config).chunks.embedded == 0
    write_pdf(second, [8, 20, 10])
    report = sync(config)
    assert (report.chunks.embedded, report.chunks.deleted) == (3, 1)
    scores = dict(zip([*names[:8], *names[8:11]], theirs.scores(query, [*drawn(first), *drawn(second)]), strict=True))
    again = search(config, query, k=12, rerank="late")
    assert {row["id"]: row["score"] for row in again} == pytest.approx(scores, abs=1e-4)
    assert verify(config).verify.missing == 0
    # The resolution is a fact of each vector's space.
    finer = pages(tmp_path, saved, dpi=144, verify={"max_rejected": 0.5})
    with pytest.raises(SpaceMismatchError, match=r"late\.page_dpi: 144 here, 72 .*page\.page_dpi: 144 here, 72"):
        sync(finer)
    other = pages(tmp_path, saved, dpi=144, kind="colqwen2", verify={"max_rejected": 0.5})
    assert reindex(other).chunks.embedded == 11
    assert len(search(other, query, k=12, rerank="late")) == 11


def test_an_index_of_images_in_python_ranks_by_patches(tmp_path: Path, saved: Saved) -> None:
    paths = write_drawings(tmp_path / "images", 6)
    (tmp_path / "images" / "none.png").write_bytes(b"not an image")
    # 300 times as wide as high, which ColQwen2 does not take.
    Image.new("RGB", (3000, 10)).save(tmp_path / "images" / "strip.png")
    corpus = {"paths": ["images/*"], "format": "image"}
    pages(tmp_path, saved, kind="colqwen2", corpus=corpus, verify={"max_rejected": 0.5})
    with Index(tmp_path / "vecbeam.yaml") as index:
        report = index.index()
        assert report.rejects == {"NotAnImage": 1, "UnsupportedImage": 1}
        theirs = Library(saved("colqwen2"))
        expected = theirs.scores("a circle", list(map(Image.open, paths)))
        scores = {path.name: score for path, score in zip(paths, expected, strict=True)}
        found = index.search("a circle", k=6, rerank="late")
        assert {hit["item_id"]: hit["score"] for hit in found} == pytest.approx(scores, abs=1e-4)
        assert index.search([paths[4]], k=1, vector="late")[0][0]["item_id"] == paths[4].name


def test_patches_alone_are_refused_before_anything_is_read(tmp_path: Path, saved: Saved) -> None:
    write_drawings(tmp_path / "images", 1)
    corpus = {"paths": ["images/*"], "format": "image"}
    config = configure(tmp_path, corpus=corpus, encoder={"model": str(saved("colpali"))})
    for command in (plan, backfill):
        with pytest.raises(ConfigurationError, match="it has a vector for each patch, which Milvus does not") as caught:
            command(config)
        assert "encoders: {meaning: {model: conse}, late: {model: ...}}" in str(caught.value.remedy)
    assert not (tmp_path / "checkpoint").exists()


def test_texts_are_queries_alone(tmp_path: Path, saved: Saved) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": "1", "text": "red"}])
    write_drawings(tmp_path / "corpus" / "images", 1)
    encoders = {"page": {"model": str(saved("clip"))}, "late": {"model": str(saved("colpali"))}}
    for paths in (["corpus/*.jsonl"], ["corpus/*.jsonl", "corpus/images/*.png"]):
        config = configure(tmp_path, corpus={"paths": paths}, encoders=encoders)
        with pytest.raises(ConfigurationError, match=r"encoders\.late\.model: .* embeds image, and .* modality text"):
            backfill(config)
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.mp4").write_bytes(b"not read")
    films = configure(tmp_path, corpus={"paths": ["films/*"], "format": "video"}, encoders=encoders)
    with pytest.raises(ConfigurationError, match=r"encoders\.late\.model: .* embeds image, and .* modality video"):
        plan(films)
    assert not (tmp_path / "checkpoint").exists()


def test_folders_without_a_projection(tmp_path: Path, saved: Saved) -> None:
    from safetensors.numpy import load_file, save_file

    plain = tmp_path / "plain"
    shutil.copytree(saved("colpali"), plain)
    settings = json.loads((plain / "config.json").read_text())
    for kind, other in (("paligemma", "colpali"), ("qwen2_vl", "colqwen2"), ("modernvbert", "colmodernvbert")):
        (plain / "config.json").write_text(json.dumps({**settings["vlm_config"], "model_type": kind}))
        with pytest.raises(ConfigurationError, match=f"model_type '{kind}': a model without the projection") as caught:
            resolve(EncoderConfig(model=str(plain)))
        assert f"model_type {other}" in str(caught.value.remedy)
    (plain / "config.json").write_text(json.dumps(settings))
    file = plain / "model.safetensors"
    weights = load_file(file)
    save_file({name: one for name, one in weights.items() if "embedding_proj_layer" not in name}, file)
    with pytest.raises(ConfigurationError, match=r"have no embedding_proj_layer\.weight"):
        resolve(EncoderConfig(model=str(plain)))
    # A weight of the model itself that is missing is found where it is loaded.
    save_file(dict(list(weights.items())[1:]), file)
    with pytest.raises(EncoderError, match="the weights of 1 parameters are missing"):
        resolve(EncoderConfig(model=str(plain))).load()
    file.write_bytes(b"\xff" * 64)
    with pytest.raises(EncoderError, match="can't read the weights"):
        resolve(EncoderConfig(model=str(plain)))
    file.unlink()
    with pytest.raises(ConfigurationError, match="holds no safetensors weights"):
        resolve(EncoderConfig(model=str(plain)))


def test_folders_whose_processor_does_not_fit(tmp_path: Path, saved: Saved) -> None:
    folder = shutil.copytree(saved("colpali"), tmp_path / "model")
    (folder / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    with pytest.raises(ConfigurationError, match=r"holds no tokenizer\.json"):
        resolve(EncoderConfig(model=str(folder)))
    (tmp_path / "tokenizer.json").rename(folder / "tokenizer.json")
    file = folder / "processor_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "processor_class": "ColQwen2Processor"}))
    with pytest.raises(EncoderError, match="can't use the processor in"):
        resolve(EncoderConfig(model=str(folder))).load()
    file.unlink()
    with pytest.raises(ConfigurationError, match=r"holds no preprocessor_config\.json"):
        resolve(EncoderConfig(model=str(folder)))


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"dimensions": 4}, r"encoder\.dimensions: .* a vector for each patch, which can't be cut"),
        ({"metric": "IP"}, r"encoder\.metric: .* a vector for each patch, which Milvus does not hold"),
        ({"normalize": False}, r"encoder\.normalize: false"),
        ({"query_prompt": "q: "}, r"encoder\.query_prompt is for text models"),
        ({"precision": "int8"}, r"encoder\.precision: int8 is for text models"),
        ({"decoding": "scaled"}, r"encoder\.decoding: scaled: .* always decodes them exactly"),
        ({"family": "colbert"}, r"encoder\.family: colbert is for texts, and .* is a model of pictures"),
    ],
)
def test_settings_that_do_not_fit(saved: Saved, keys: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        resolve(EncoderConfig(model=str(saved("colpali")), **keys))
    bfloat = EncoderConfig(model=str(saved("colpali")), precision="bfloat16")
    assert resolve(bfloat).space.id == resolve(EncoderConfig(model=str(saved("colpali")))).space.id


def test_the_processor_s_instruction_is_part_of_the_space(tmp_path: Path, saved: Saved) -> None:
    folder = shutil.copytree(saved("colpali"), tmp_path / "model")
    file = folder / "processor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "query_prefix": "Query: "}))
    spaces = [resolve(EncoderConfig(model=str(one))).space for one in (folder, saved("colpali"))]
    assert len({space.id for space in spaces}) == 2
    assert "Question: " in spaces[0].differences(spaces[1])[0]
