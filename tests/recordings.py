"""Recordings that tests make, files of sound with one fault each, and a small Whisper model with seeded weights."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float32]]


def tune(number: int, seconds: float = 0.6, rate: int = 16_000) -> Floats:
    """A sound that no other number gives: three notes, with noise."""
    random = np.random.default_rng(number)
    times = np.arange(round(seconds * rate)) / rate
    notes = random.uniform(120, 2500, 3)
    sound = sum(np.sin(2 * np.pi * note * times * (1 + 0.2 * times)) for note in notes) / 6
    return (sound + random.normal(0, 0.02, len(times))).astype(np.float32)


def encoded(sound: Floats, rate: int = 16_000, format: str = "WAV", subtype: str | None = None) -> bytes:
    import soundfile

    stream = io.BytesIO()
    soundfile.write(stream, sound, rate, format=format, subtype=subtype)
    return stream.getvalue()


def encoded_by_av(sound: Floats, rate: int, format: str) -> bytes:
    """AAC, in MPEG-4 ("mp4") or alone ("adts")."""
    import av

    stream = io.BytesIO()
    with av.open(stream, "w", format=format) as container:
        track = container.add_stream("aac", rate=rate)
        track.layout = "mono"
        for start in range(0, len(sound), 1024):
            frame = av.AudioFrame.from_ndarray(sound[None, start : start + 1024].copy(), "fltp", "mono")
            frame.sample_rate, frame.pts = rate, start
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return stream.getvalue()


def write_tunes(folder: Path, count: int, first: int = 0) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"tune-{number:03d}.wav" for number in range(first, first + count)]
    for number, path in enumerate(paths, first):
        path.write_bytes(encoded(tune(number)))
    return paths


def promising(data: bytes, more: int) -> bytes:
    """A wav whose header promises so many bytes more than it has."""
    place = data.index(b"data") + 4
    (length,) = struct.unpack_from("<I", data, place)
    return data[:place] + struct.pack("<I", length + more) + data[place + 4 :]


def damaged() -> dict[str, tuple[bytes, str]]:
    """Files that are not a recording, or a damaged one, and the error that each is rejected with."""
    whole = encoded(tune(900))
    ogg = encoded(tune(900, 3.0), format="OGG", subtype="VORBIS")
    return {
        "page.mp3": (b"<html><body>Not found</body></html>", "NotSound"),
        "promises.wav": (promising(whole, 9000), "DamagedSound"),
        "cut.ogg": (ogg[: len(ogg) * 2 // 3], "DamagedSound"),
        "no-samples.wav": (encoded(tune(1)[:0]), "EmptySound"),
        "click.wav": (encoded(tune(1)[:160]), "SoundTooShort"),
        "empty.flac": (b"", "EmptyFile"),
    }


def save_whisper(folder: Path, seed: int = 0) -> Path:
    """A tiny model of 2 s windows, as transformers saves it."""
    import torch
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    torch.manual_seed(seed)
    config = WhisperConfig(
        vocab_size=16,
        d_model=32,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_mel_bins=20,
        max_source_positions=100,
        max_target_positions=16,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"), 1),
    )
    WhisperModel(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=20, chunk_length=2).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "whisper"
    return folder
