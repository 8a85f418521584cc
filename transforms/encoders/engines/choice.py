"""Which engine a model runs on: the configured one, or the fastest one here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from schemas.errors import ConfigurationError, EncoderError, MissingExtraError
from schemas.identity import digest
from transforms.encoders.engines.base import Engine
from transforms.encoders.engines.cache import Origin, find
from transforms.encoders.engines.devices import gpus
from transforms.encoders.engines.extra import INSTALL, has_torch, need_torch
from transforms.encoders.engines.tokens import TokenTable
from transforms.encoders.engines.transformer_files import TransformerFiles
from transforms.support.extras import is_installed

log = logging.getLogger("vecbeam")


def check_engine(model: TransformerFiles) -> None:
    """Refuses what can't run, as far as that is known without a worker.

    Raises:
        ConfigurationError: OpenVINO or int8 without the package, or for a model that it can't convert.
    """
    config = model.config
    if config.engine == "amx":
        from transforms.encoders.engines.amx.weights import unsupported

        reason = unsupported(model)
        if reason:
            raise ConfigurationError(f"encoder.engine: amx does not know {config.model}: {reason}", "set engine: auto")
    wants = "encoder.engine: openvino" if config.engine == "openvino" else ""
    wants = wants or ("encoder.precision: int8" if config.precision == "int8" else "")
    if not wants:
        return
    packages = ["openvino", "nncf"] if config.precision == "int8" else ["openvino"]
    lacking = [package for package in packages if not is_installed(package)]
    if lacking:
        raise ConfigurationError(f"{wants} needs {' and '.join(lacking)}", "pip install 'vecbeam[openvino]'")
    if model.leaves_prompt_out:
        raise ConfigurationError(
            f"{wants}: {config.model} leaves its prompt out of pooling, which converted models can't do",
            "set encoder.engine: torch",
        )


def check_runnable(model: TransformerFiles) -> None:
    """Refuses a model that no engine can run here because torch is missing: , without loading anything.

    Raises:
        MissingExtraError: if what is configured needs torch, and it is not installed.
    """
    if has_torch():
        return
    config = model.config
    if config.engine == "torch" or config.device == "cuda":
        need_torch("encoder.engine: torch" if config.engine == "torch" else "encoder.device: cuda")
    if config.engine in ("auto", "amx") and config.precision != "int8" and _is_compared(model):
        return
    if config.engine == "amx" or not _is_converted(model):
        raise _nothing_runs(model)


def _is_compared(model: TransformerFiles) -> bool:
    """Whether the kernels can run a model without torch."""
    from transforms.encoders.engines.amx import library, weights

    if library.lacking() or weights.unsupported(model):
        return False
    from transforms.encoders.engines.amx.engine import WAYS, comparison

    return find(comparison(model, WAYS[model.config.precision][0].numbers)) is not None


def _is_converted(model: TransformerFiles) -> bool:
    """Whether OpenVINO can run a model without torch."""
    if not is_installed("openvino") or model.leaves_prompt_out:
        return False
    from transforms.encoders.engines.openvino.conversion import PACKAGES

    return find(Origin.of(model, PACKAGES)) is not None


def _nothing_runs(model: TransformerFiles) -> MissingExtraError:
    config = model.config
    return MissingExtraError(
        f"encoder.engine: {config.engine} can't run {config.model} here: the extra torch is not installed, and a model "
        "that was never converted or compared needs it once",
        f"{INSTALL}; or run it on a machine that has that, and name a copy of its cache folder with VECBEAM_CACHE",
    )


def load_engine(model: TransformerFiles, sample: TokenTable | None = None) -> Engine:
    """Loads a model on the engine of its configuration.

    Args:
        sample: tokens of the texts from which int8 determines its ranges.

    Raises:
        EncoderError: if a GPU is configured and there is none, or the model can't be loaded or converted.
        MissingExtraError: if that needs torch, and it is not installed.
    """
    config = model.config
    # These run on the CPU, also of a worker that has a GPU.
    on_cpu = config.engine in ("openvino", "amx") or config.precision == "int8"
    found = [] if on_cpu else gpus(config.device)
    if found or config.engine == "torch":
        return _torch(model, found or ["cpu"])
    may_choose = config.engine == "auto" and config.precision != "int8"
    if config.engine == "amx" or may_choose:
        engine = _amx(model, may_choose)
        if engine:
            return engine
    if may_choose and (not is_installed("openvino") or model.leaves_prompt_out):
        if not has_torch():
            raise _nothing_runs(model)
        return _torch(model, ["cpu"])
    try:
        return _openvino(model, sample)
    except MissingExtraError as error:
        raise _nothing_runs(model) from error
    except EncoderError:
        raise
    except Exception as error:  # OpenVINO raises errors of many kinds for models that it does not know
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error).strip() else ''}"
        if not may_choose:
            raise EncoderError(
                f"OpenVINO can't convert {config.model}: {reason}", "set encoder.engine: torch"
            ) from error
        log.warning("OpenVINO can't convert %s (%s); it runs on torch", config.model, reason)
        return _torch(model, ["cpu"])


def _amx(model: TransformerFiles, may_choose: bool) -> Engine | None:
    """The engine of vecbeam's kernels; None if it can't run and another engine may."""
    from transforms.encoders.engines.amx import library, weights

    lacking = library.lacking()
    if may_choose and (lacking or weights.unsupported(model)):
        return None
    if lacking:
        raise EncoderError(f"encoder.engine is amx, but {lacking}", "set encoder.engine: auto")
    from transforms.encoders.engines.amx.engine import AMXEngine

    try:
        return AMXEngine(model)
    except MissingExtraError as error:
        if may_choose:
            return None
        raise _nothing_runs(model) from error
    except ValueError as error:
        if not may_choose:
            raise EncoderError(f"engine amx can't run {model.config.model}: {error}", "set engine: auto") from error
        log.warning("engine amx can't run %s (%s); another engine does", model.config.model, error)
        return None


def _torch(model: TransformerFiles, devices: list[str]) -> Engine:
    need_torch("encoder.engine: torch")
    from transforms.encoders.engines.torch.engine import TorchEngine
    from transforms.encoders.engines.torch.modules import load_modules

    return TorchEngine(model, devices, load=partial(load_modules, route=model.route))


def load_on_torch(model: TransformerFiles, load: Callable[[str, str], Any]) -> Engine:
    """Loads a model whose modules are not the sentence-transformers library's, on all GPUs or on the CPU.

    Args:
        load: gives its torch modules, from folder and device.

    Raises:
        EncoderError: if a GPU is configured and there is none, or the model can't be loaded.
        MissingExtraError: if torch is not installed.
    """
    need_torch(f"encoder.model: {model.config.model}")
    from transforms.encoders.engines.torch.engine import TorchEngine

    return TorchEngine(model, gpus(model.config.device) or ["cpu"], False, load)


def _openvino(model: TransformerFiles, sample: TokenTable | None) -> Engine:
    from transforms.encoders.engines.openvino.conversion import PACKAGES, convert, converted
    from transforms.encoders.engines.openvino.engine import OpenVINOEngine

    conversion = Origin.of(model, PACKAGES)

    def whole() -> Path:
        return converted(conversion, lambda: convert(model.folder, model.max_tokens, model.route))

    if model.config.precision != "int8":
        return OpenVINOEngine(model, conversion, whole)
    if sample is None or len(sample.lengths) == 0:
        raise EncoderError("int8 has no texts to take its ranges from", "set encoder.precision: bfloat16")
    from transforms.encoders.engines import processor
    from transforms.encoders.engines.openvino.int8 import quantize

    kind = "int8" if processor.has_wide_int8_sums() else "int8 without overflow"
    seen = digest([sample.flat.tolist(), sample.lengths.tolist()], 32)
    quantized = Origin.of(model, PACKAGES, kind, seen)
    return OpenVINOEngine(model, quantized, lambda: converted(quantized, lambda: quantize(whole(), sample)))
