"""Encoders: a protocol, a catalogue, and one file per family. Imports neither Beam nor pymilvus.

>>> from schemas.config import EncoderConfig
>>> model = resolve(EncoderConfig(model="fake", dimensions=8))
>>> model.load().encode(text_inputs(["two words"])).matrix.shape
(1, 8)
"""

from transforms.encoders.base import Encoded, Encoder, Model, TokenIds, Work, text_inputs, vector_field
from transforms.encoders.catalogue import CATALOGUE
from transforms.encoders.families import resolve, resolve_on_worker

__all__ = [
    "CATALOGUE",
    "Encoded",
    "Encoder",
    "Model",
    "TokenIds",
    "Work",
    "resolve",
    "resolve_on_worker",
    "text_inputs",
    "vector_field",
]
