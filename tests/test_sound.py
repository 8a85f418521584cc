"""Decoding of recordings: every format, any rate and layout, any seconds of them, and files that end early."""

from __future__ import annotations

import io

import numpy as np
import pytest
from recordings import damaged, encoded, encoded_by_av, promising, tune

from schemas.errors import CorpusError
from transforms.encoders.media import sound
from transforms.encoders.media.content import RefusedError, opened

for module in ("soundfile", "soxr", "av"):
    pytest.importorskip(module, reason="the extra audio is not installed")

FORMATS = {
    "wav": lambda one: encoded(one, 22_050),
    "flac": lambda one: encoded(one, 22_050, "FLAC"),
    "mp3": lambda one: encoded(one, 22_050, "MP3"),
    "ogg": lambda one: encoded(one, 22_050, "OGG", "VORBIS"),
    "opus": lambda one: encoded(one, 24_000, "OGG", "OPUS"),
    "m4a": lambda one: encoded_by_av(one, 22_050, "mp4"),
    "aac": lambda one: encoded_by_av(one, 22_050, "adts"),
}


def heard(data: bytes, rate: int = 22_050, start: float = 0.0, end: float | None = None) -> sound.Heard:
    return sound.decode(io.BytesIO(data), rate, start, end)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_gives_the_same_sound_and_the_seconds_requested(format: str) -> None:
    rate = 24_000 if format == "opus" else 22_050
    made = tune(1, 4.0, rate)
    data = FORMATS[format](made)
    whole = heard(data, rate)
    seconds = sound.seconds_of(io.BytesIO(data))
    assert seconds == pytest.approx(whole.total) == pytest.approx(4.0, abs=0.12)
    # Encoders with loss shift the beginning by some milliseconds.
    padded = np.pad(made, 4000)
    size = 1 << 18
    product = np.fft.irfft(np.fft.rfft(padded, size) * np.fft.rfft(whole.samples, size).conj())
    assert product.max() / (np.linalg.norm(made) * np.linalg.norm(whole.samples)) > 0.9
    piece = heard(data, rate, 1.5, 2.75)
    assert piece.seconds == pytest.approx(1.25, abs=0.001)
    own = whole.samples[round(1.5 * rate) : round(2.75 * rate)]
    inner = slice(2000, 20_000)  # a decoder with a memory needs some packets
    assert np.corrcoef(piece.samples[inner], own[inner])[0, 1] > 0.99


def test_channels_count_the_same_and_rates_change() -> None:
    left, right = tune(1, 1.0, 8000), tune(2, 1.0, 8000)
    stereo = heard(encoded(np.stack([left, right], axis=1), 8000, subtype="FLOAT"), 8000)
    assert np.abs(stereo.samples - (left + right) / 2).max() < 1e-6
    assert len(heard(encoded(left, 8000), 16_000).samples) == 16_000
    for channels in (1, 2, 4, 6):
        many = heard(encoded(np.stack([left] * channels, axis=1), 8000, subtype="FLOAT"), 8000)
        assert np.abs(many.samples - left).max() < 1e-6


@pytest.mark.parametrize("name", [name for name in damaged() if name != "click.wav"])
def test_damaged_files_are_refused(name: str) -> None:
    data, error = damaged()[name]
    with pytest.raises(RefusedError) as one:
        heard(data)
    assert one.value.error == error
    with pytest.raises(RefusedError):
        sound.seconds_of(io.BytesIO(data))


def test_what_the_library_says_is_the_same_in_each_run() -> None:
    wav = encoded(tune(1))
    with pytest.raises(RefusedError) as one:
        heard(wav[:24] + bytes(4) + wav[28:])  # of 0 samples a second
    assert one.value.error == "DamagedSound"
    assert one.value.reason.startswith("The recording can't be decoded: Internal error")


@pytest.mark.parametrize("format", ["wav", "flac", "ogg", "opus", "m4a"])
def test_a_file_that_ends_early_is_refused(format: str) -> None:
    data = FORMATS[format](tune(1, 4.0, 24_000 if format == "opus" else 22_050))
    with pytest.raises(RefusedError) as one:
        heard(data[: len(data) * 2 // 3])
    assert one.value.error == "DamagedSound"


def test_a_wav_says_how_much_is_missing_and_one_from_a_pipe_says_nothing() -> None:
    whole = encoded(tune(1))
    with pytest.raises(RefusedError, match="promises 28,200 bytes of samples, the file has 19,200"):
        heard(promising(whole, 9000))
    piped = promising(whole, 0xFFFFFFFF - 19_200)
    assert len(heard(piped, 16_000).samples) == 9600


def test_numbers_that_are_none_are_refused() -> None:
    made = tune(1)
    made[100] = np.nan
    with pytest.raises(RefusedError, match="NaN"):
        heard(encoded(made, subtype="FLOAT"))


def test_a_file_without_sound_and_one_by_another_demuxer_are_refused() -> None:
    playlist = b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/a.aac\n"
    with pytest.raises(RefusedError) as one:
        heard(playlist)
    assert one.value.error == "NotSound"


def test_a_failure_of_the_storage_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    from transforms.support.storage import filesystem

    class Failing(io.BytesIO):
        reads = 0

        def read(self, size: int | None = -1) -> bytes:
            self.reads += 1
            if self.reads > 6:
                raise TimeoutError("the store does not answer")
            return super().read(size)

    data = encoded(tune(1, 30.0), format="FLAC")
    monkeypatch.setattr(filesystem, "open_binary", lambda _: Failing(data))
    with pytest.raises(CorpusError, match="does not answer"), opened("gs://b/a.flac", None) as stream:
        sound.decode(stream, 16_000)
