"""Which part of an item each encoder embeds: checked, and put into the terms of `schemas.item_inputs`."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.config.corpus import Corpus
from schemas.config.encoder import MEDIA, PICTURE, SOUND, VECTOR, EncoderConfig
from schemas.formats import format_of_suffix, holds_records, suffix_of
from schemas.item_inputs import Input
from schemas.modality import Modality

_EXAMPLE = "encoders: {title: {model: ..., input: [title]}, photo: {model: ..., input: media}}"


def inputs_of(corpus: Corpus, encoders: Mapping[str, EncoderConfig], *, is_chunked: bool) -> dict[str, Input]:
    """What each vector describes of an item, by its name; {} where all describe the whole item.

    Args:
        encoders: by name; "" for the only one.
        is_chunked: whether items are split into chunks.

    Raises:
        ValueError: names the key, the value and the remedy.
    """
    of_subtitles = {name for name, one in encoders.items() if subtitles_named(one, corpus) is not None}
    if of_subtitles:
        _check_subtitles(corpus, encoders, of_subtitles)
        return {}
    is_named = any(isinstance(one.input, list) or one.input == MEDIA for one in encoders.values())
    if not is_named:
        _refuse_two_contents(corpus)
        return {}
    found = {name: _input(name, one, corpus) for name, one in encoders.items()}
    _refuse_unused(corpus, found)
    whole = Input(tuple(corpus.content), Modality.TEXT)
    distinct = set(found.values())
    if len(distinct) == 1 and (distinct == {whole} or not next(iter(distinct)).is_text):
        return {}
    _refuse_same(encoders)
    _refuse_files(corpus, next(key(name, "input") for name, one in encoders.items() if one.input is not None))
    if is_chunked:
        told = ", ".join(f"{name or VECTOR}: {one}" for name, one in found.items())
        raise ValueError(
            f"chunk: encoders embed parts of an item ({told}), and so each item is one row; set chunk: false"
            + (f", or corpus.content: [{next(iter(distinct))}]" if len(distinct) == 1 else "")
        )
    return found


def key(name: str, setting: str) -> str:
    """A key of an encoder in messages.

    >>> key("title", "input"), key("", "input")
    ('encoders.title.input', 'encoder.input')
    """
    return f"encoders.{name}.{setting}" if name else f"encoder.{setting}"


def subtitles_named(encoder: EncoderConfig, corpus: Corpus) -> str | None:
    """The metadata column with subtitles of films that an encoder embeds; None if it embeds something else."""
    given = encoder.input if isinstance(encoder.input, list) else []
    return next((name for name in given if name in corpus.subtitle_columns and name not in corpus.content), None)


def _check_subtitles(corpus: Corpus, encoders: Mapping[str, EncoderConfig], of_subtitles: set[str]) -> None:
    """Refuses encoders that do not embed a film's own parts next to those that embed its subtitles."""
    for name, one in encoders.items():
        place = key(name, "input")
        if name in of_subtitles and isinstance(one.input, list) and len(one.input) > 1:
            raise ValueError(
                f"{place}: [{', '.join(one.input)}] names {subtitles_named(one, corpus)}, which has subtitles, and "
                "other fields; name that one alone"
            )
        if name not in of_subtitles and (isinstance(one.input, list) or one.input == MEDIA):
            raise ValueError(
                f"{place}: encoders of subtitles are for segments of films, of which the others embed picture or "
                f"sound; remove {place}, or set it to one of these or to a column of subtitles "
                f"({', '.join(corpus.subtitle_columns)})"
            )
        if one.is_bm25:
            raise ValueError(
                f"{key(name, 'model')}: Milvus computes bm25 of the text of a row, which rows of films do not have; "
                "name another model"
            )
    if corpus.modalities != {Modality.VIDEO}:
        place = key(sorted(of_subtitles)[0], "input")
        raise ValueError(
            f"{place}: subtitles are embedded where all items are films, and the corpus has "
            f"{' and '.join(sorted(corpus.modalities))}; give the films a configuration of their own, or remove {place}"
        )
    _refuse_two_contents(corpus)


def _input(name: str, encoder: EncoderConfig, corpus: Corpus) -> Input:
    place, given = key(name, "input"), encoder.input
    has_texts = "content" in corpus.model_fields_set or not _has_media(corpus)
    if given is None:
        if encoder.is_bm25 and has_texts:
            return Input(tuple(corpus.content), Modality.TEXT)
        if has_texts and _has_media(corpus):
            raise ValueError(
                f"{place} is missing: items have texts (corpus.content) and media; set it to fields, such as "
                f"[{corpus.content[0]}], or to media"
            )
        return Input(tuple(corpus.content), Modality.TEXT) if has_texts else _media(corpus)
    if not isinstance(given, list):
        if not _has_media(corpus):
            raise ValueError(
                f"{place}: {given} is what corpus.media names, and that is not set; set corpus.media, or name fields "
                f"of corpus.content, such as [{corpus.content[0]}]"
            )
        media = _media(corpus)
        if given in (PICTURE, SOUND) and media.modality is not Modality.VIDEO:
            raise ValueError(
                f"{place}: {given} is a part of films, and the media are {media.modality}; set it to media"
            )
        return media
    if not has_texts:
        raise ValueError(
            f"{place}: [{', '.join(given)}] names fields of corpus.content, which is not set; set corpus.content, or "
            f"{place}: media"
        )
    for field in given:
        if field not in corpus.content:
            raise ValueError(
                f"{place}: {field!r} is not a field of corpus.content ({', '.join(corpus.content)}); add it there, or "
                f"name one of these{', or media' if _has_media(corpus) else ''}"
            )
    if encoder.is_bm25 and given != corpus.content:
        raise ValueError(
            f"{place}: Milvus computes bm25 of the whole text of a row, which is corpus.content "
            f"({', '.join(corpus.content)}); remove {place}"
        )
    return Input(tuple(given), Modality.TEXT)


def _has_media(corpus: Corpus) -> bool:
    return corpus.media is not None or corpus.is_of_tars


def _media(corpus: Corpus) -> Input:
    fields = () if corpus.media is None else (corpus.media,)
    return Input(fields, Modality(corpus.media_modality or Modality.IMAGE))


def _refuse_two_contents(corpus: Corpus) -> None:
    if corpus.media is not None and not corpus.is_of_tars and "content" in corpus.model_fields_set:
        raise ValueError(
            "corpus.content and corpus.media are both set, and no encoder says which of them it embeds; set the input "
            f"of each ({_EXAMPLE}), or remove content, and name texts next to {corpus.media!r} in metadata"
        )


def _refuse_unused(corpus: Corpus, inputs: Mapping[str, Input]) -> None:
    """Refuses contents that no encoder embeds: a misunderstanding, as these may be metadata."""
    if corpus.media is not None and corpus.media in corpus.content and "content" in corpus.model_fields_set:
        raise ValueError(
            f"corpus.content: {corpus.media!r} is corpus.media, which is not a text; remove it from corpus.content"
        )
    if corpus.media is not None and all(one.is_text for one in inputs.values()):
        raise ValueError(
            f"corpus.media: no encoder embeds {corpus.media!r}; set input: media of an encoder, or remove corpus.media"
        )
    if "content" in corpus.model_fields_set and not any(one.is_text for one in inputs.values()):
        raise ValueError(
            f"corpus.content: no encoder embeds {', '.join(corpus.content)}; set the input of an encoder to fields of "
            "it, or remove corpus.content, and name these fields in corpus.metadata"
        )


def _refuse_same(encoders: Mapping[str, EncoderConfig]) -> None:
    for place, (name, one) in enumerate(encoders.items()):
        for other, second in list(encoders.items())[:place]:
            if one == second:
                raise ValueError(
                    f"encoders: {other} and {name} are the same: the same model with the same input; remove one"
                )


def _refuse_files(corpus: Corpus, place: str) -> None:
    """Refuses files that are items each: these have no fields."""
    if corpus.format is not None:
        if not holds_records(corpus.format):
            raise ValueError(
                f"{place}: it is for records, and in the format {corpus.format} a file is an item; remove it"
            )
        return
    for path in corpus.paths:
        known = format_of_suffix().get(suffix_of(path))
        if known is not None and not holds_records(known):
            raise ValueError(
                f"{place}: it is for records, and each file of {path!r} is an item; remove it, or that path"
            )
