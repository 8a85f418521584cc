"""Zilliz Cloud's import API on 127.0.0.1, as its pages document it: it refuses fields that they don't name.

Sources: see `transforms/milvus/rows/zilliz_import.py`. The server imports nothing itself: `imports` does, with the
addresses of a job's files.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY, CLUSTER = "zilliz-api-key-0123456789", "in01-0123456789abcde"
ACCESS, SECRET = "storage-access-0123", "storage-secret-0123"
PLACE = {"clusterId": str, "projectId": str, "regionId": str}
FIELDS: dict[str, dict[str, type]] = {
    "create": {
        **PLACE,
        **{"dbName": str, "collectionName": str, "partitionName": str, "objectUrl": str, "objectUrls": list},
        **{"accessKey": str, "secretKey": str, "token": str},
    },
    "describe": {**PLACE, "jobId": str},
    "list": {**PLACE, "pageSize": int, "currentPage": int},
}
NEEDED = {"create": ["collectionName"], "describe": ["jobId"], "list": []}
MOST_FILES = 1000


@dataclass
class Job:
    """A job of the server."""

    id: str
    collection: str
    files: list[str]
    state: str = "Pending"
    reason: str = ""
    failed: str = ""
    rows: int = 0
    polls: int = 0


@dataclass
class ZillizServer:
    """What the server does and did.

    Attributes:
        imports: called once with the files of a job; returns its rows; an OSError fails the job.
        faults: of the next requests, one each, as (name of the call, what): a status; `lost` does it and cuts the
            connection; `half` does it and sends half the answer; `full` says that too many jobs wait.
        polls: how often a job is described before it is completed.
        knows_keys: whether an idempotency key is honoured.
        requests: (name of the call, body, headers) of each.
    """

    imports: Callable[[list[str]], int] = lambda files: len(files)
    faults: deque[tuple[str, int | str]] = field(default_factory=deque)
    polls: int = 1
    knows_keys: bool = False
    spelling: str = "jobId"
    as_list: bool = False
    jobs: dict[str, Job] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    uri: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def made(self, name: str) -> list[dict[str, Any]]:
        """Bodies of the requests of a name."""
        return [body for one, body, _ in self.requests if one == name]

    def answer(self, name: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Status and JSON."""
        if headers.get("authorization") != f"Bearer {KEY}":
            return 200, {"code": 21119, "message": "The apikey is illegal."}
        fields = FIELDS[name]
        for key, value in body.items():
            if key not in fields or not isinstance(value, fields[key]):
                return 400, {"code": 1801, "message": f"unknown field or wrong type: {key}"}
        if missing := [key for key in NEEDED[name] if not body.get(key)]:
            return 400, {"code": 1802, "message": f"missing required parameters: {missing[0]}"}
        by_project = bool(body.get("projectId")) and bool(body.get("regionId"))
        if body.get("clusterId") != CLUSTER and not by_project:
            return 200, {"code": 40021, "message": f"Cluster not exist: {body.get('clusterId')}"}
        return 200, getattr(self, f"_{name}")(body, headers)

    def _create(self, body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
        files = body.get("objectUrls")
        if not files or not all(isinstance(one, list) and len(one) == 1 and isinstance(one[0], str) for one in files):
            return {"code": 1802, "message": "missing required parameters: objectUrls, a list of lists of one address"}
        if len(files) > MOST_FILES:
            return {"code": 2100, "message": f"importing data failed: too many files, {len(files)}"}
        if (body.get("accessKey"), body.get("secretKey")) != (ACCESS, SECRET):
            return {"code": 2100, "message": f"access denied: accessKey {body.get('accessKey')}"}
        key = headers.get("idempotency-key", "")
        if self.knows_keys and key in self.keys:
            return {"code": 0, "data": {self.spelling: self.keys[key]}}
        job = Job(f"job-{len(self.jobs):04d}", body["collectionName"], [one[0] for one in files])
        self.jobs[job.id] = self.jobs.get(job.id, job)
        self.keys[key] = job.id
        data = {self.spelling: job.id}
        return {"code": 0, "data": [data] if self.as_list else data}

    def _describe(self, body: dict[str, Any], _: dict[str, str]) -> dict[str, Any]:
        job = self.jobs.get(body["jobId"])
        if job is None:
            return {"code": 2100, "message": f"import job does not exist: {body['jobId']}"}
        self._advance(job)
        detail = {"fileName": job.failed or job.files[0], "fileSize": 1, "state": job.state, "progress": 100}
        detail |= {"completeTime": "", "reason": job.reason}
        data = {"jobId": job.id, "collectionName": job.collection, "fileName": job.files[0], "fileSize": 1}
        data |= {"state": job.state, "progress": 100 if job.state == "Completed" else 10 * job.polls}
        data |= {"completeTime": "", "reason": job.reason, "totalRows": job.rows, "details": [detail]}
        return {"code": 0, "data": data}

    def _advance(self, job: Job) -> None:
        if job.state not in ("Pending", "Importing"):
            return
        job.polls += 1
        if job.polls <= self.polls:
            job.state = "Importing"
            return
        try:
            job.rows, job.state = self.imports(job.files), "Completed"
        except OSError as error:
            job.state, job.reason, job.failed = "Failed", str(error), str(error.filename or "")

    def _list(self, body: dict[str, Any], _: dict[str, str]) -> dict[str, Any]:
        size, page = body.get("pageSize", 10), body.get("currentPage", 1)
        found = list(self.jobs.values())[size * (page - 1) : size * page]
        spelled = {"Importing": "InProgress"}  # as the page of the list has it
        records = [
            {"collectionName": job.collection, "jobId": job.id, "state": spelled.get(job.state, job.state)}
            for job in found
        ]
        return {"code": 0, "data": {"count": len(records), "currentPage": page, "pageSize": size, "records": records}}


@contextmanager
def zilliz_server() -> Iterator[ZillizServer]:
    """A server at work."""
    state = ZillizServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_POST(self) -> None:
            name = self.path.rsplit("/", 1)[-1]
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            headers = {key.lower(): value for key, value in self.headers.items()}
            with state.lock:
                state.requests.append((name, body, headers))
                fault = state.faults.popleft()[1] if state.faults and state.faults[0][0] == name else None
                if fault == "full":
                    said = "importing data failed: The number of jobs has reached the limit, please try again later."
                    return self._say(200, {"code": 2100, "message": said})
                if isinstance(fault, int):
                    return self._say(fault, {"code": fault, "message": f"no, also not for {ACCESS}"})
                status, answer = state.answer(name, body, headers) if name in FIELDS else (404, {"code": 404})
            if fault == "lost":
                self.close_connection = True
                return None
            return self._say(status, answer, half=fault == "half")

        def _say(self, status: int, answer: dict[str, Any], *, half: bool = False) -> None:
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if status == 429:
                self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if half else data)
            if half:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.uri = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
