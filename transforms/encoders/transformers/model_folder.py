"""A folder that transformers' `save_pretrained` wrote: its settings, checked, and its model, loaded whole."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from schemas.errors import ConfigurationError, EncoderError
from transforms.encoders.engines.torch.torchvision_operators import make_importable
from transforms.encoders.model_files import read_json

# What a file says of its own making, of other heads than vecbeam uses, or of training.
_BOOKKEEPING = frozenset(
    [
        *("_name_or_path", "_commit_hash", "transformers_version", "architectures", "torch_dtype", "dtype"),
        *("id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "processor_class"),
        *("return_dict", "output_attentions", "output_hidden_states", "use_cache", "torchscript", "auto_map"),
        *("initializer_factor", "initializer_range", "_valid_processor_keys", "_attn_implementation"),
    ]
)
_TRAINING_ALONE = ("masked_spec_embed", "mask_token")
"""Ends of the names of weights that no vector depends on, and that some folders do not have."""


class ModelFolder(NamedTuple):
    """A folder and its config.json."""

    folder: Path
    settings: Mapping[str, Any]

    @property
    def model_type(self) -> str:
        """The architecture."""
        return str(self.settings.get("model_type"))

    @classmethod
    def read(cls, folder: Path) -> ModelFolder:
        """The folder, checked.

        Raises:
            ConfigurationError: if it needs code of its own, or its weights are quantised.
        """
        settings = read_json(folder / "config.json")
        for name in ("config.json", "preprocessor_config.json", "processor_config.json", "tokenizer_config.json"):
            if read_json(folder / name).get("auto_map"):
                raise ConfigurationError(
                    f"encoder.model: {folder / name} has auto_map: the model needs code that comes with it, which "
                    "vecbeam never runs",
                    "name a model whose architecture is part of the transformers library",
                )
        if settings.get("quantization_config"):
            raise ConfigurationError(
                f"encoder.model: {folder / 'config.json'} has quantization_config, and vecbeam loads no quantised "
                "weights of media models",
                "name the model that it was made from, and set encoder.precision: bfloat16",
            )
        return cls(folder, settings)

    @property
    def architecture(self) -> dict[str, Any]:
        """The settings of config.json that may change vectors."""
        return _meaning(self.settings)

    def processing(self, kind: str) -> dict[str, Any]:
        """The settings of the model's image processor or feature extractor.

        Args:
            kind: `image_processor` or `feature_extractor`.

        Raises:
            ConfigurationError: if the folder has none.
        """
        # As the library does: newer files hold it as a section, older ones are it.
        both = read_json(self.folder / "processor_config.json")
        found = both.get(kind) or read_json(self.folder / "preprocessor_config.json")
        if not found:
            what = kind.replace("_", " ")
            raise ConfigurationError(
                f"encoder.model: {self.folder} holds no preprocessor_config.json, which says how inputs are prepared",
                f"save the {what} in addition to the model: AutoProcessor.from_pretrained(...).save_pretrained(folder)",
            )
        return _meaning(found)

    @property
    def instructions(self) -> dict[str, Any]:
        """What the model's processor adds to an input: the settings of processor_config.json outside its sections."""
        found = _meaning(read_json(self.folder / "processor_config.json"))
        return {key: value for key, value in found.items() if not isinstance(value, dict)}

    def feature_extractor(self, kind: str) -> Any:
        """What makes a recording an input of the model.

        Args:
            kind: the library's class.

        Raises:
            EncoderError: if its settings are damaged.
        """
        make_importable()
        import transformers

        try:
            return getattr(transformers, kind).from_pretrained(self.folder, local_files_only=True)
        except Exception as error:  # the library raises errors of many kinds for damaged files
            raise EncoderError(
                f"can't use the feature extractor in {self.folder}: {error}", "check its preprocessor_config.json"
            ) from error

    def load(self, *unused: str, kind: str = "AutoModel") -> Any:
        """The model as the library loads it, in float32 and evaluation mode.

        Args:
            unused: beginnings of the names of weights that the vectors do not depend on.
            kind: the library's class that loads it.

        Raises:
            EncoderError: if files are damaged, or weights are missing, which the library would make up at random.
        """
        make_importable()
        import torch
        import transformers
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        try:
            with _without_report():
                model, report = getattr(transformers, kind).from_pretrained(
                    self.folder,
                    use_safetensors=True,
                    trust_remote_code=False,
                    local_files_only=True,
                    dtype=torch.float32,
                    output_loading_info=True,
                )
        except Exception as error:  # the library raises errors of many kinds for damaged files
            raise EncoderError(f"can't load the model in {self.folder}: {error}", "check the folder's files") from error
        missing = sorted(
            name
            for name in report["missing_keys"]
            if not name.startswith(unused) and not name.endswith(_TRAINING_ALONE)
        )
        if missing:
            raise EncoderError(
                f"can't load the model in {self.folder}: the weights of {len(missing)} parameters are missing, such as "
                f"{missing[0]}",
                f"check that config.json, of model_type {self.model_type}, belongs to the weights",
            )
        return model.eval()


@contextmanager
def _without_report() -> Iterator[None]:
    """Keeps the library's report of weights from the log: layers that vecbeam leaves out are in it as unexpected."""
    logger = logging.getLogger("transformers.modeling_utils")

    def is_other(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def _meaning(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without what changes no vector, also in their sections."""
    return {
        key: _meaning(value) if isinstance(value, Mapping) else value
        for key, value in settings.items()
        if key not in _BOOKKEEPING and value is not None
    }
