"""Zilliz Cloud's import through its REST API (v2): it reads the parts from your bucket.

Sources: https://docs.zilliz.com/reference/restful/create-import-jobs-v2 (fields of the request),
https://docs.zilliz.com/docs/data-import-parquet (`objectUrls`, a list for each file; at most 1,000 files per job),
https://docs.zilliz.com/docs/import-data-via-restful-api (fewer than 10,000 jobs of a collection wait or run),
https://docs.zilliz.com/reference/restful/get-import-job-progress-v2, .../list-import-jobs-v2,
https://docs.zilliz.com/docs/data-import-storage-options (addresses of objects), and the client of Zilliz' own
`pymilvus.bulk_writer.bulk_import`, which names `projectId` and `regionId` too, and `token` for short-term keys.

The pages disagree in places, and vecbeam accepts each: `jobId` or `jobID`, an object or a list of one in `data`,
0 or 200 as the code of success, Importing or InProgress as the state of a job.

Zilliz documents no idempotency key. Milvus does (https://milvus.io/docs/idempotent-import.md, header
`Idempotency-Key`, from 2.6.24 and 3.0.2, ignored by others): vecbeam sends it and does not rely on it. It looks for
a job whose answer was lost in the list of jobs.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from schemas.config import Collection
from schemas.errors import CollectionError, ConfigurationError
from transforms.milvus.rows.import_service import ImportState, JobStage, ListedJob, LostAnswerError, QueueFullError
from transforms.milvus.throttling import is_throttling
from transforms.support import metrics, stop
from transforms.support.retry import retrying

API_KEY = "ZILLIZ_API_KEY"
ACCESS_KEY, SECRET_KEY, SESSION_TOKEN = (
    "ZILLIZ_STORAGE_ACCESS_KEY",
    "ZILLIZ_STORAGE_SECRET_KEY",
    "ZILLIZ_STORAGE_TOKEN",
)
FILES_PER_JOB = 1000
JOBS_AT_ONCE = 16
PAGE = 100
CONNECT_S = 10.0
MOST_PAGES = 200
"""20,000 jobs: twice what a collection may have."""
_STAGES = {"completed": JobStage.DONE, "failed": JobStage.FAILED}
_SHOWN = 400


class TransientAnswerError(Exception):
    """A request that may succeed later: no connection, half an answer, 408, 429 or 5xx."""

    def __init__(self, text: str, *, throttled: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.throttled, self.retry_after = throttled, retry_after


def object_url(uri: str) -> str:
    """A file of the checkpoint as Zilliz Cloud names it.

    Raises:
        ConfigurationError: if it is in no bucket that Zilliz Cloud reads.

    >>> object_url("s3://bucket/docs/part.parquet"), object_url("azfs://account/box/part.parquet")
    ('s3://bucket/docs/part.parquet', 'https://account.blob.core.windows.net/box/part.parquet')
    """
    scheme, _, rest = uri.partition("://")
    if scheme in ("s3", "gs"):
        return uri
    account, box, key = "", "", ""
    if scheme == "azfs":
        account, box, key = (*rest.split("/", 2), "", "")[:3]
    elif scheme in ("abfs", "abfss") and "@" in rest.partition("/")[0]:
        place, _, key = rest.partition("/")
        box, _, host = place.partition("@")
        account = host.partition(".")[0]
    elif scheme in ("az", "abfs", "abfss"):
        box, _, key = rest.partition("/")
        account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
    if account and box:
        return f"https://{account}.blob.core.windows.net/{box}/{quote(key)}"
    raise ConfigurationError(
        f"checkpoint: {uri!r} is in no bucket that Zilliz Cloud reads",
        "put the checkpoint to s3://, gs:// or azfs://ACCOUNT/CONTAINER/, or set collection.load: upsert",
    )


def check_keys(checkpoint: str) -> None:
    """Raises ConfigurationError where a key is missing in the environment, or the checkpoint is in no bucket."""
    object_url(checkpoint)
    missing = [name for name in (ACCESS_KEY, SECRET_KEY) if name not in os.environ]
    if not _api_key():
        missing.insert(0, API_KEY)
    if missing:
        raise ConfigurationError(
            f"collection.zilliz: the environment variable {', '.join(missing)} is not set",
            f"export an API key of Zilliz Cloud as {API_KEY}, and keys that read the checkpoint's bucket as "
            f"{ACCESS_KEY} and {SECRET_KEY}; or set collection.load: upsert",
        )
    if any(character.isspace() or not character.isascii() for character in _api_key()):
        raise ConfigurationError(f"{API_KEY} is not an API key: it has spaces or letters that no key has")


def _api_key() -> str:
    """The API key: a variable of its own, or the token of the collection, if that is not user:password."""
    token = os.environ.get("MILVUS_TOKEN", "")
    return os.environ.get(API_KEY) or (token if ":" not in token else "")


class ZillizImport:
    """The import of Zilliz Cloud; an `ImportService`.

    Args:
        settings: with `zilliz`.
        name: of the collection.
    """

    def __init__(self, settings: Collection, name: str) -> None:
        import requests

        assert settings.zilliz is not None
        self._settings, self._zilliz, self._name = settings, settings.zilliz, name
        self.place = f"Zilliz Cloud ({self._zilliz.endpoint})"
        self.files_per_job, self.jobs_at_once = FILES_PER_JOB, JOBS_AT_ONCE
        self._session = requests.Session()
        # Else the library would send a password of ~/.netrc in place of the key.
        self._session.auth = self._authorize

    def path_of(self, uri: str) -> str:
        return object_url(uri)

    def create(self, files: Sequence[str], key: str) -> str:
        body = {
            **self._place(),
            "collectionName": self._name,
            "objectUrls": [[file] for file in files],
            "accessKey": os.environ.get(ACCESS_KEY, ""),
            "secretKey": os.environ.get(SECRET_KEY, ""),
        }
        if token := os.environ.get(SESSION_TOKEN):
            body["token"] = token
        try:
            data = self._post("create", body, {"Idempotency-Key": key})
            return _job_id(data)
        except TransientAnswerError as error:
            if error.throttled:
                metrics.count("throttled", 1)
                raise QueueFullError(f"{self.place} takes no further import job now: {error}") from error
            raise LostAnswerError(
                f"{self.place} did not answer whether it began an import: {error}",
                "run the same command again: it looks for the job, and imports nothing twice",
            ) from error

    def state(self, job: str) -> ImportState:
        data = self._repeated("describe", {"jobId": job, **self._place(database=False)})
        if not isinstance(data, dict) or "state" not in data:
            raise CollectionError(f"{self.place} gives no state of import job {job}", "run the same command again")
        details = [one for one in data.get("details") or [] if isinstance(one, dict)]
        failed = [one for one in details if str(one.get("state")).lower() == "failed"]
        reasons = [str(data.get("reason") or ""), *(str(one.get("reason") or "") for one in failed)]
        return ImportState(
            _stage(data["state"]),
            (data["state"], data.get("progress"), data.get("importedRows")),
            self._masked("; ".join(dict.fromkeys(filter(None, reasons)))),
            tuple(str(one.get("fileName", "")) for one in failed),
        )

    def jobs(self) -> list[ListedJob]:
        found: dict[str, ListedJob] = {}
        for page in range(1, MOST_PAGES + 1):
            body = {**self._place(database=False), "pageSize": PAGE, "currentPage": page}
            data = self._repeated("list", body)
            records = data.get("records") if isinstance(data, dict) else None
            if not isinstance(records, list):
                raise CollectionError(f"{self.place} gives no list of import jobs", "run the same command again")
            for one in records:
                if one.get("collectionName") == self._name:
                    job = _job_id(one)
                    found[job] = ListedJob(job, _stage(one.get("state")))
            if len(records) < PAGE:
                break
        return list(found.values())

    def _place(self, *, database: bool = True) -> dict[str, str]:
        named = {"dbName": self._settings.database} if database and self._settings.database else {}
        return {**self._zilliz.place, **named}

    def _repeated(self, what: str, body: dict[str, Any]) -> Any:
        """The answer to a question, which may be repeated."""

        def passes(error: BaseException) -> bool:
            if isinstance(error, TransientAnswerError) and error.throttled:
                metrics.count("throttled", 1)
            return isinstance(error, TransientAnswerError)

        try:
            return retrying(f"Zilliz Cloud {what}", self._settings.retry_s, passes)(self._post, what, body)
        except TransientAnswerError as error:
            raise CollectionError(
                f"{self.place} does not answer: {what} of import jobs failed ({error})",
                "run the same command again; what was imported so far is kept",
            ) from error

    def _post(self, what: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> Any:
        """The field `data` of an answer.

        Raises:
            TransientAnswerError: see there.
            CollectionError: if the request is refused.
        """
        import requests

        stop.check()
        limit = self._settings.timeout_s
        try:
            response = self._session.post(
                f"{self._zilliz.endpoint}/v2/vectordb/jobs/import/{what}",
                json=body,
                headers={"Accept": "application/json", **(headers or {})},
                timeout=(min(CONNECT_S, limit), limit),
                allow_redirects=False,  # the keys are for this address alone
            )
            status, content = response.status_code, response.content
        except requests.exceptions.SSLError as error:
            raise CollectionError(
                f"can't connect to {self.place}: {error}", "check collection.zilliz.endpoint"
            ) from None
        except requests.exceptions.RequestException as error:  # refused, reset, late, or half an answer
            raise TransientAnswerError(self._masked(str(error))) from None
        text = self._masked(content[:4096].decode(errors="replace"))
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        code, said = 0, text[:_SHOWN]
        if isinstance(answer, dict):
            code = answer.get("code", 0)
            code = int(code) if str(code).isdigit() else -1
            said = self._masked(str(answer.get("message") or ""))[:_SHOWN] or said
        if status == 429 or is_throttling(code, 0, said if code not in (0, 200) else ""):
            after = response.headers.get("Retry-After", "")
            raise TransientAnswerError(said, throttled=True, retry_after=float(after) if after.isdigit() else 0.0)
        if status in (408, 425) or status >= 500:
            raise TransientAnswerError(f"status {status}: {said}")
        if status == 200 and not isinstance(answer, dict):
            raise TransientAnswerError(f"the answer is not JSON: {said!r}")
        if status != 200 or code not in (0, 200):
            raise self._refused(what, status, code, said)
        return answer.get("data")

    def _refused(self, what: str, status: int, code: int, said: str) -> CollectionError:
        where = f"{self.place} refuses to {what} import jobs: {said} (status {status}, code {code})"
        if status in (401, 403) or code == 21119 or re.search(r"api ?key|unauthor", said, re.IGNORECASE):
            return CollectionError(where, f"put an API key that may import into that cluster into {API_KEY}")
        if re.search(r"cluster|project|region", said, re.IGNORECASE):
            return CollectionError(where, "correct cluster_id, or project_id and region_id, of collection.zilliz")
        if re.search(r"access|secret|bucket|credential|object", said, re.IGNORECASE):
            return CollectionError(
                where, f"check that {ACCESS_KEY} and {SECRET_KEY} may read and list the checkpoint's bucket"
            )
        if status == 404:
            return CollectionError(where, "correct collection.zilliz.endpoint")
        return CollectionError(where, "correct what it names, or set collection.load: upsert")

    def _authorize(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {_api_key()}"
        return request

    def _masked(self, text: str) -> str:
        """A text of the service without the keys, which some answers repeat."""
        secrets = [_api_key(), *(os.environ.get(name, "") for name in (ACCESS_KEY, SECRET_KEY, SESSION_TOKEN))]
        for secret in filter(None, secrets):
            text = text.replace(secret, "***")
        return " ".join(text.split())


def _stage(state: object) -> JobStage:
    return _STAGES.get(str(state).lower(), JobStage.RUNNING)


def _job_id(data: Any) -> str:
    if isinstance(data, list) and len(data) == 1:
        data = data[0]
    found = (data.get("jobId") or data.get("jobID")) if isinstance(data, dict) else None
    if not found:
        raise TransientAnswerError("the answer has no jobId")
    return str(found)
