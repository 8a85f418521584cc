"""Settings of object stores: what a client is made with, and which wrong ones are refused before anything is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from schemas.errors import ConfigurationError
from transforms.support.storage.remote import aws_client, bucket_client
from transforms.support.storage.remote.address import parse

SERVER = "http://127.0.0.1:9"
KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}


@pytest.fixture(autouse=True)
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_CONFIG_FILE", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    before = FileSystems._pipeline_options
    yield
    FileSystems.set_options(before)


@pytest.mark.parametrize("style", ["", "path", "virtual"])
@pytest.mark.parametrize("region", ["", "environment", "option"])
def test_a_server_is_described_as_botocore_would(
    style: str, region: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "config").write_text(f"[default]\ns3 =\n  addressing_style = {style}\n" if style else "[default]\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    if region == "environment":
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    options = {"s3_endpoint_url": SERVER} | ({"s3_region_name": "eu-north-1"} if region == "option" else {})
    address = parse("s3://bucket/name")
    quick = aws_client.s3_store(address, options)
    monkeypatch.setattr(aws_client, "_own_server", lambda _: None)
    asked = aws_client.s3_store(address, options)
    assert (quick.config, quick.prefix) == (asked.config, asked.prefix)
    assert ("bucket." in quick.config["endpoint"]) == (style == "virtual")


WRONG = {
    "s3 without http": ("s3", {"s3_endpoint_url": "127.0.0.1:9"}, KEYS, "Invalid endpoint: 127.0.0.1:9.*HOST:PORT"),
    "s3 without host": ("s3", {"s3_endpoint_url": "http://"}, KEYS, "Invalid endpoint: http://.*HOST:PORT"),
    "profile": ("s3", {"s3_endpoint_url": SERVER}, {"AWS_PROFILE": "nobody"}, r"profile \(nobody\).*AWS_PROFILE"),
    "broken file": ("s3", {}, {"AWS_CONFIG_FILE": "{file}"}, "Unable to parse config file.*~/.aws/config"),
    "no such file": ("gs", {}, {"GOOGLE_APPLICATION_CREDENTIALS": "{file}.no"}, "file.no was not found.*gcloud auth"),
    "no JSON": ("gs", {}, {"GOOGLE_APPLICATION_CREDENTIALS": "{file}"}, "not a valid json file.*gcloud auth"),
    "azure without host": (
        "az",
        {},
        {"AZURE_STORAGE_CONNECTION_STRING": "AccountName=a;AccountKey=YQ==;BlobEndpoint=http://"},
        "az://bucket/: .*empty host.*variables in the environment",
    ),
}


@pytest.mark.parametrize(("scheme", "options", "environment", "said"), list(WRONG.values()), ids=list(WRONG))
def test_a_wrong_setting_is_refused_and_named(
    scheme: str,
    options: dict[str, str],
    environment: dict[str, str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").write_text("x[")
    for name, value in environment.items():
        monkeypatch.setenv(name, value.replace("{file}", str(tmp_path / "file")))
    FileSystems.set_options(PipelineOptions.from_dictionary(options))
    with pytest.raises(ConfigurationError, match=said):
        bucket_client.check(f"{scheme}://bucket/name")
