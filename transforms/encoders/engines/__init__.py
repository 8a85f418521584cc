"""Engines: the same model on torch or OpenVINO, in float32, bfloat16 or int8. Heavy libraries load with the engine."""

from transforms.encoders.engines.base import Engine
from transforms.encoders.engines.choice import load_engine, load_on_torch
from transforms.encoders.engines.tokens import TokenTable

__all__ = ["Engine", "TokenTable", "load_engine", "load_on_torch"]
