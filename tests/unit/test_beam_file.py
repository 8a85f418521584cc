"""Writes on Beam's filesystems that fail: nothing is published later."""

from __future__ import annotations

import gc
import io
from typing import Any

import pytest
from apache_beam.io.filesystemio import Uploader, UploaderStream

from transforms.support.storage.remote import beam_file


class Recorded(Uploader):  # type: ignore[misc]
    """What a store gets."""

    def __init__(self) -> None:
        self.taken = b""
        self.finished = False

    def put(self, data: Any) -> None:
        self.taken += bytes(data)

    def finish(self) -> None:
        self.finished = True


class Torn(io.BytesIO):
    def read(self, _: int | None = -1) -> bytes:
        if self.tell():
            raise OSError("the disk failed")
        return super().read(1000)


@pytest.mark.parametrize(("data", "whole"), [(Torn(bytes(2000)), False), (io.BytesIO(bytes(2000)), True)])
def test_a_file_whose_write_failed_is_not_published_when_it_is_collected(
    monkeypatch: pytest.MonkeyPatch, data: io.BytesIO, whole: bool
) -> None:
    upload = Recorded()

    class Stores:
        def create(self, *_: Any, **__: Any) -> io.BufferedWriter:
            return io.BufferedWriter(UploaderStream(upload), buffer_size=512)

    monkeypatch.setattr(beam_file, "beam", Stores)
    if whole:
        beam_file.write("hdfs://a/b", data)
    else:
        with pytest.raises(OSError, match="the disk failed"):
            beam_file.write("hdfs://a/b", data)
    gc.collect()
    assert upload.finished == whole
    assert not whole or upload.taken == bytes(2000)
