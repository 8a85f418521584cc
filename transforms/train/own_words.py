"""A model of one's own without a base: a vector for each word (`nn.Embedding`), whose mean is the vector of a text.

It starts with random vectors, so that texts are as near as the words that they share. Training moves the words of a
pair together. The result is a file of word vectors, which the family `words` reads.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from schemas.errors import ConfigurationError
from transforms.support.extras import is_installed
from transforms.support.storage import filesystem

NAME = "static"
"""What the command calls such a model."""
FILE = "words.vec"
RUN = r"[^\W_]+"
"""Words are runs of letters and digits, in lower case: so the family `words` reads a text, too."""
_UNKNOWN = "[UNK]"


def save_random_words(folder: Path, texts: Iterable[str], dimensions: int, seed: int = 0) -> int:
    """Writes a model of sentence-transformers with random vectors of the words of some texts.

    A word that these texts do not have gets a vector of zeros.

    Returns:
        How many words it knows.

    Raises:
        ConfigurationError: if the texts have no word.
    """
    if is_installed("torchvision"):
        from transforms.encoders.engines.torch.torchvision_operators import make_importable

        make_importable()
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import WordLevel

    normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(re.findall(RUN, normalizer.normalize_str(text)))
    if not counts:
        raise ConfigurationError("PAIRS: no text has a word: a run of letters and digits", "give pairs of texts")
    words = [_UNKNOWN, *sorted(counts, key=lambda word: (-counts[word], word))]
    tokenizer = Tokenizer(WordLevel({word: at for at, word in enumerate(words)}, unk_token=_UNKNOWN))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(RUN), behavior="removed", invert=True)
    vectors = np.random.default_rng(seed).standard_normal((len(words), dimensions), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[0] = 0
    static = StaticEmbedding(tokenizer, embedding_weights=vectors)
    SentenceTransformer(modules=[static, Normalize()], device="cpu").save_pretrained(
        str(folder), create_model_card=False, safe_serialization=True
    )
    return len(words) - 1


def write_words(model: Any, folder: Path) -> None:
    """Writes the words of a trained model and their vectors as a text file of word2vec."""
    static = model[0]
    vectors = static.embedding.weight.detach().cpu().numpy()
    words = sorted(static.tokenizer.get_vocab().items(), key=lambda one: one[1])[1:]
    lines = [f"{len(words)} {vectors.shape[1]}"]
    lines += [" ".join([word, *(f"{number:.9g}" for number in vectors[at])]) for word, at in words]
    filesystem.write_atomic(str(folder / FILE), ("\n".join(lines) + "\n").encode())
