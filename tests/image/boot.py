#!/opt/vecbeam/venv/bin/python
"""A replacement for /opt/apache/beam/boot, Beam's program in Go, which no package registry carries.

It keeps the same contract: `--worker_pool` serves a pool of workers on port 50000, which starts this program again for
each worker; a worker asks the provision API for the pipeline's options, and then becomes the SDK harness.
"""

from __future__ import annotations

import argparse
import os
import sys


def serve_pool() -> None:
    from apache_beam.runners.worker import worker_pool_main

    sys.exit(worker_pool_main.main(["", "--service_port=50000", f"--container_executable={os.path.abspath(__file__)}"]))  # noqa: PTH100


def become_worker(given: argparse.Namespace) -> None:
    import grpc
    from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc, endpoints_pb2
    from apache_beam.runners.worker import sdk_worker_main
    from google.protobuf import json_format, text_format

    with grpc.insecure_channel(given.provision_endpoint) as channel:
        service = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        request = beam_provision_api_pb2.GetProvisionInfoRequest()
        info = service.GetProvisionInfo(request, metadata=[("worker_id", given.id)], timeout=60).info

    def described(url: str) -> str:
        return text_format.MessageToString(endpoints_pb2.ApiServiceDescriptor(url=url))

    os.environ.update(
        WORKER_ID=given.id,
        CONTROL_API_SERVICE_DESCRIPTOR=described(given.control_endpoint),
        LOGGING_API_SERVICE_DESCRIPTOR=described(given.logging_endpoint),
        PIPELINE_OPTIONS=json_format.MessageToJson(info.pipeline_options),
        RUNNER_CAPABILITIES=" ".join(info.runner_capabilities),
    )
    sdk_worker_main.main([])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker_pool", action="store_true")
    for name in ("id", "logging_endpoint", "artifact_endpoint", "provision_endpoint", "control_endpoint"):
        parser.add_argument(f"--{name}", default="")
    arguments = parser.parse_args()
    serve_pool() if arguments.worker_pool else become_worker(arguments)
