"""Encoders: a protocol, a catalogue, and one file a family. Imports neither Beam nor pymilvus.

>>> from schemas.config import Encoder
>>> model = resolve(Encoder(model="fake", dimensions=8))
>>> model.load().encode(["two words"]).vectors.shape
(1, 8)
"""

from transforms.encoders.base import Encoded, Encoder, TextModel, TokenIds
from transforms.encoders.catalogue import CATALOGUE, resolve, resolve_on_worker

__all__ = ["CATALOGUE", "Encoded", "Encoder", "TextModel", "TokenIds", "resolve", "resolve_on_worker"]
