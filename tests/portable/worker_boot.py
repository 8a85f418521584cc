"""What a worker starts with, after Beam's container contract: provision API, environment, SDK harness.

Beam's images have a program in Go for this; workers get the pipeline options only from such a program. This one runs
in a mount namespace with nothing of the launcher's in sight (see `worker_roots`), imports Beam once, and forks a worker
for each line of JSON on standard input, which has the options of a container: id, logging_endpoint,
provision_endpoint, control_endpoint. It answers with the worker's process id.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import traceback


def work(options: dict[str, str]) -> None:
    """Runs a worker to its end."""
    import grpc
    from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc, endpoints_pb2
    from apache_beam.runners.worker import sdk_worker_main
    from google.protobuf import json_format, text_format

    with grpc.insecure_channel(options["provision_endpoint"]) as channel:
        service = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        request = beam_provision_api_pb2.GetProvisionInfoRequest()
        info = service.GetProvisionInfo(request, metadata=[("worker_id", options["id"])], timeout=60).info

    def described(name: str) -> str:
        return text_format.MessageToString(endpoints_pb2.ApiServiceDescriptor(url=options[name]))

    os.environ.update(
        WORKER_ID=options["id"],
        CONTROL_API_SERVICE_DESCRIPTOR=described("control_endpoint"),
        LOGGING_API_SERVICE_DESCRIPTOR=described("logging_endpoint"),
        PIPELINE_OPTIONS=json_format.MessageToJson(info.pipeline_options),
        RUNNER_CAPABILITIES=" ".join(info.runner_capabilities),
    )
    sdk_worker_main.main([])


def main(host: str) -> None:
    with contextlib.suppress(OSError):  # a name of its own, where the machine permits it
        socket.sethostname(host)
    # Imports alone: a fork must not inherit threads or connections.
    import pyarrow  # noqa: F401
    from apache_beam.runners.worker import sdk_worker_main  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the workers
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            code = 1
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.close(0)
                os.dup2(2, 1)
                work(json.loads(line))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        print(process, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
