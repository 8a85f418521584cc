"""The whole configuration, and what its sections must agree on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from schemas import milvus
from schemas.allowed_uris import is_local
from schemas.config.base import Section, Text
from schemas.config.chunk import ChunkConfig
from schemas.config.collection import Collection, Verify
from schemas.config.corpus import Corpus
from schemas.config.corpus.metadata_columns import COLUMN_NAME, RESERVED_COLUMNS, rename_hint
from schemas.config.encoder import (
    PICTURE,
    SOUND,
    VECTOR,
    EncoderConfig,
    PageEncoderConfig,
    SubtitlesEncoderConfig,
)
from schemas.config.encoder_inputs import inputs_of, key, subtitles_named
from schemas.config.gpu_workers import gpu_defaults, gpu_refusal
from schemas.config.runner import Runner
from schemas.item_inputs import Input
from schemas.languages import language_code
from schemas.modality import Modality


class Config(Section):
    """A vecbeam configuration: one corpus, one encoder, one collection behind an alias."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,199}$")] = Field(
        description="Alias of the collection and folder of the checkpoint: letters, digits, underscores"
    )
    corpus: Corpus
    chunk: ChunkConfig | Literal[False] = Field(
        default_factory=lambda: ChunkConfig(),
        description="false turns chunking off: one vector per item; tokens or seconds over the limit are dropped and "
        "counted",
    )
    encoder: EncoderConfig = Field(default_factory=lambda: EncoderConfig())
    encoders: dict[str, EncoderConfig] = Field(
        default_factory=dict,
        description="Several vectors per row, by name; `encoder` is short for {vector: ...}",
    )
    batch_rows: int = Field(
        2048, ge=1, le=65536, description="Most items per batch, the unit of work, of retry and of checkpoint"
    )
    checkpoint: Text = Field(description="Folder of the Parquet checkpoint, on any filesystem that Beam knows")
    thumbnails: bool = Field(
        False,
        description="Whether the checkpoint keeps small pictures of images, films and sounds for the page of `vecbeam "
        "serve`; written as `checkpoint: {folder: ./checkpoint, thumbnails: true}` as well",
    )
    collection: Collection
    verify: Verify = Field(default_factory=lambda: Verify())
    runner: Runner = Field(default_factory=lambda: Runner())

    @model_validator(mode="before")
    @classmethod
    def _checkpoint_with_settings(cls, value: Any) -> Any:
        if not (isinstance(value, dict) and isinstance(value.get("checkpoint"), dict)):
            return value
        given = value["checkpoint"]
        if "folder" not in given or not given.keys() <= {"folder", "thumbnails"}:
            raise ValueError(
                f"checkpoint has {', '.join(map(repr, given)) or 'nothing'}; write the name of a folder, or "
                "{folder: ./checkpoint, thumbnails: true}"
            )
        return {**value, "checkpoint": given["folder"], "thumbnails": given.get("thumbnails", False)}

    @model_validator(mode="after")
    def _thumbnails_are_of_media(self) -> Config:
        if self.thumbnails and self.corpus.modalities == {Modality.TEXT}:
            raise ValueError("thumbnails are of images, recordings and films, and the corpus is texts; remove them")
        return self

    @property
    def vectors(self) -> dict[str, EncoderConfig]:
        """The encoder of each vector of a row, by the vector's name.

        Of films each says which part it embeds, and of subtitles in which language; of pages that are drawn with how
        many pixels per inch.
        """
        named = dict(self.encoders) or {VECTOR: self.encoder}
        if (pages := self.corpus.pages) is not None:
            return {name: PageEncoderConfig.of(one, dpi=pages.dpi) for name, one in named.items()}
        if Modality.VIDEO not in self.corpus.modalities:
            return named
        return {name: self._of_film(name, one) for name, one in named.items()}

    def _of_film(self, name: str, encoder: EncoderConfig) -> EncoderConfig:
        """An encoder of a corpus with films, with the part of them that it embeds."""
        if (name in self.inputs and self.inputs[name].is_text) or encoder.input == SOUND:
            return encoder
        if (column := subtitles_named(encoder, self.corpus)) is not None:
            language = language_code(self.corpus.metadata[column].language or "")
            return SubtitlesEncoderConfig.of(encoder, column=column, language=language)
        return encoder.model_copy(update={"input": PICTURE})

    @property
    def inputs(self) -> Mapping[str, Input]:
        """What each vector describes of an item, by the vector's name; {} where all describe the same."""
        return self.corpus.inputs

    @property
    def accelerator(self) -> str | None:
        """What the workers that embed need, for Beam; None where no encoder has one."""
        return next((one.accelerator for one in self.vectors.values() if one.accelerator), None)

    @property
    def min_ram(self) -> str | None:
        """Memory of the workers that have the accelerator."""
        return next((one.min_ram for one in self.vectors.values() if one.min_ram), None)

    @property
    def runner_options(self) -> dict[str, Any]:
        """Beam's options: those of `runner`, and what vecbeam sets on Dataflow for an accelerator."""
        options = self.runner.options
        return {**options, **gpu_defaults(self.accelerator, options)} if self.runner.name == "dataflow" else options

    @property
    def model_names(self) -> str:
        """The models in words, for messages and reports."""
        if not self.encoders:
            return self.encoder.model
        return ", ".join(f"{name}: {encoder.model}" for name, encoder in self.encoders.items())

    @property
    def precisions(self) -> str:
        """The precision of each model that vecbeam runs, in words."""
        return ", ".join(encoder.precision for encoder in self.vectors.values() if not encoder.is_bm25)

    @model_validator(mode="after")
    def _inputs_are_told(self) -> Config:
        """Tells the corpus what encoders embed of its items: first of all, as its modalities follow from that."""
        named = self.encoders or {"": self.encoder}
        found = inputs_of(self.corpus, named, is_chunked=self.chunk is not False)
        self.corpus._inputs = {name or VECTOR: one for name, one in found.items()}
        return self

    @model_validator(mode="after")
    def _vectors_are_named(self) -> Config:
        if self.encoders and "encoder" in self.model_fields_set:
            raise ValueError("encoder and encoders are both there; encoder is short for encoders: {vector: ...}")
        of_words = [name for name, encoder in self.encoders.items() if encoder.is_bm25]
        if len(of_words) > 1:
            raise ValueError(
                f"encoders: {' and '.join(of_words)} are both bm25, which reads the text of a row in one way; keep one"
            )
        hints = {encoder.accelerator for encoder in self.encoders.values() if encoder.accelerator}
        if len(hints) > 1:
            raise ValueError(
                f"encoders: they name different accelerators ({', '.join(sorted(hints))}), and one step embeds with "
                "all of them; name one"
            )
        memory = {encoder.min_ram for encoder in self.encoders.values() if encoder.min_ram}
        if len(memory) > 1:
            raise ValueError(
                f"encoders: they name different min_ram ({', '.join(sorted(memory))}), and one step embeds with all of "
                "them; name the largest, once"
            )
        server = milvus.LITE if self.collection.is_lite else milvus.SERVER
        taken = (*RESERVED_COLUMNS, *self.corpus.metadata)
        for name in self.encoders:
            why = "it is a column of its own" if name in taken and name != VECTOR else milvus.refusal(name, server)
            if not COLUMN_NAME.match(name):
                why = "a name has letters, digits and underscores"
            if why:
                raise ValueError(f"encoders: {name!r} can't be the name of a vector: {why}; choose another")
        return self

    @model_validator(mode="after")
    def _chunks_fit_the_items(self) -> Config:
        if not self.chunk:
            return self
        found = self.corpus.modalities
        modality = " and ".join(sorted(found))
        timed = any(one.is_timed for one in found)
        if self.chunk.of_seconds and not timed:
            raise ValueError(
                f"chunk.{self.chunk.of_seconds[0]}: the corpus is of the modality {modality}, and seconds are for "
                "recordings and films; " + ("set chunk.max_tokens" if Modality.TEXT in found else "remove it")
            )
        if self.chunk.scenes and Modality.VIDEO not in found:
            raise ValueError(
                f"chunk.scenes: the corpus is of the modality {modality}, and scenes are of films; remove it"
            )
        tokens = self.chunk.of_tokens
        if tokens and Modality.TEXT not in found:
            raise ValueError(
                f"chunk.{tokens[0]}: the corpus is of the modality {modality}, and tokens are for texts; "
                + ("set chunk.seconds" if timed else "remove it")
            )
        return self

    @model_validator(mode="after")
    def _decoding_is_of_images(self) -> Config:
        for name, one in (self.encoders or {"": self.encoder}).items():
            if one.decoding != "exact" and Modality.IMAGE not in self._modalities_of(name):
                raise ValueError(
                    f"{key(name, 'decoding')}: {one.decoding} is for images, and {self._what_of(name)}; remove it"
                )
        return self

    def _modalities_of(self, name: str) -> frozenset[Modality]:
        """What an encoder embeds of items: its input, or all of the corpus."""
        own = self.inputs.get(name or VECTOR)
        return self.corpus.modalities if own is None else frozenset({own.modality})

    def _what_of(self, name: str) -> str:
        own = self.inputs.get(name or VECTOR)
        what = "the corpus is of the modality" if own is None else f"its input {own} is of the modality"
        return f"{what} {self.corpus.modality if own is None else own.modality}"

    @model_validator(mode="after")
    def _parts_are_of_films(self) -> Config:
        for name, one in (self.encoders or {"": self.encoder}).items():
            if Modality.VIDEO in self._modalities_of(name):
                continue
            of_films = [setting for setting in ("frames", "frames_per_second") if getattr(one, setting) is not None]
            if one.input in (PICTURE, SOUND):
                of_films.insert(0, "input")
            if of_films:
                other = "" if name in self.inputs else ", or set corpus.format: video"
                raise ValueError(
                    f"{key(name, of_films[0])}: it is for films, and {self._what_of(name)}; remove it{other}"
                )
        return self

    @model_validator(mode="after")
    def _columns_can_be_named(self) -> Config:
        server = milvus.LITE if self.collection.is_lite else milvus.SERVER
        refused = [(name, why) for name in self.corpus.metadata if (why := milvus.refusal(name, server))]
        if refused:
            said = "; ".join(f"{name!r} can't be a column: {why}; {rename_hint(name)}" for name, why in refused)
            raise ValueError(f"corpus.metadata: {said}")
        return self

    @model_validator(mode="after")
    def _accelerator_fits_the_runner(self) -> Config:
        if self.runner.name == "dataflow" and (refusal := gpu_refusal(self.accelerator, self.runner.options)):
            raise ValueError(refusal)
        return self

    @model_validator(mode="after")
    def _workers_reach_it(self) -> Config:
        if self.runner.is_local:
            return self
        if self.collection.is_lite:
            raise ValueError(
                f"collection.uri {self.collection.uri!r} is Milvus Lite, which lives on one machine; with runner "
                f"{self.runner.name} name a server: http(s)://host:19530"
            )
        paths = [("checkpoint", self.checkpoint), *(("corpus.paths", path) for path in self.corpus.paths)]
        paths += [("corpus.allow_uris", path) for path in self.corpus.allow_uris if is_local(path)]
        for encoder in self.vectors.values():
            if encoder.model.startswith((".", "/", "~")):
                paths.append(("encoder.model", encoder.model))
        for named, path in paths:
            if refusal := self.runner.refusal(named, path):
                raise ValueError(refusal)
        return self
