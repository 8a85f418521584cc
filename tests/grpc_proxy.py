"""A gRPC proxy on 127.0.0.1 before a Milvus: it counts the calls that are under way, and can answer with a status."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from pymilvus.grpc_gen import common_pb2, milvus_pb2

UPSERT = "Upsert"


class CountingProxy(grpc.GenericRpcHandler):  # type: ignore[misc]
    """What the proxy does and did.

    Attributes:
        hold_s: seconds that it holds each call named `held`, so that calls overlap.
        answers: (code, reason) of Milvus with which it answers the next upserts itself.
        before: of a method, what is done before a call of it is passed on.
        unavailable: of a method, how many of its next calls fail as if there were no server.
        most: most calls of a method that were under way at a time.
        calls: of each method.
    """

    def __init__(self, target: str, hold_s: float = 0.0, held: str = UPSERT) -> None:
        self._channel = grpc.insecure_channel(target, [("grpc.max_receive_message_length", -1)])
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()
        self.hold_s, self.held = hold_s, held
        self.answers: deque[tuple[int, str]] = deque()
        self.before: dict[str, Callable[[], None]] = {}
        self.unavailable: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.uri = ""

    def service(self, details: Any) -> Any:
        path = details.method
        name = path.rsplit("/", 1)[-1]
        forward = self._channel.unary_unary(path)

        def passed(request: bytes, context: Any) -> bytes:
            with self._lock:
                self.calls[name] += 1
                self._under_way[name] += 1
                self.most[name] = max(self.most[name], self._under_way[name])
                fails = self.unavailable[name] > 0
                self.unavailable[name] -= fails
                answer = self.answers.popleft() if self.answers and name == UPSERT else None
            try:
                if name in self.before:
                    self.before[name]()
                if fails:
                    context.abort(grpc.StatusCode.UNAVAILABLE, "planted")
                if answer is not None:
                    status = common_pb2.Status(code=answer[0], reason=answer[1])
                    return bytes(milvus_pb2.MutationResult(status=status).SerializeToString())
                if name == self.held:
                    time.sleep(self.hold_s)
                metadata = [(key, value) for key, value in context.invocation_metadata() if key != "user-agent"]
                found, call = forward.with_call(request, metadata=metadata, timeout=context.time_remaining())
                context.send_initial_metadata(call.initial_metadata())
                return bytes(found)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
                raise
            finally:
                with self._lock:
                    self._under_way[name] -= 1

        return grpc.unary_unary_rpc_method_handler(passed)

    def close(self) -> None:
        self._channel.close()


@contextmanager
def counting(target: str, hold_s: float = 0.0) -> Iterator[CountingProxy]:
    """A proxy before the Milvus at `http://host:port`."""
    proxy = CountingProxy(target.removeprefix("http://"), hold_s)
    server = grpc.server(ThreadPoolExecutor(64), handlers=[proxy], options=[("grpc.max_receive_message_length", -1)])
    proxy.uri = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield proxy
    finally:
        server.stop(0)
        proxy.close()
