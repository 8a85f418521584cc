# Image for workers with a GPU. The context is the root of the repository:
#
#   docker build --file deploy/images/worker.Dockerfile --tag REGION-docker.pkg.dev/PROJECT/vecbeam/worker:0.1.0 .
#
# The versions of Python and Beam must be those of the machine that starts the job. torch 2.13.0 of PyPI carries the
# libraries of CUDA 13.0, which needs a driver from 580 on. For an older driver take both arguments together:
#
#   --build-arg BASE=nvidia/cuda:12.6.3-base-ubuntu24.04 --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126
ARG BASE=nvidia/cuda:13.0.2-base-ubuntu24.04
ARG BEAM=apache/beam_python3.11_sdk:2.77.0

FROM ${BEAM} AS beam

# Ubuntu 24.04 has no Python 3.11: it comes from this archive of packages; "" where the base has it.
FROM ${BASE} AS python
ARG PYTHON_ARCHIVE=ppa:deadsnakes/ppa
ENV DEBIAN_FRONTEND=noninteractive
# hadolint ignore=DL3008
RUN apt-get update \
    && if [ -n "${PYTHON_ARCHIVE}" ]; then \
         apt-get install --yes --no-install-recommends gpg-agent software-properties-common \
         && add-apt-repository --yes "${PYTHON_ARCHIVE}"; \
       fi \
    && apt-get install --yes --no-install-recommends ca-certificates python3.11 python3.11-venv \
    && rm -rf /var/lib/apt/lists/*

# The wheel, with the kernels for AMX. The image gets the wheel alone: sources next to it would hide the installation.
FROM python AS wheel
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml setup.py MANIFEST.in README.md ./
COPY schemas schemas
COPY transforms transforms
COPY pipelines pipelines
COPY vecbeam vecbeam
RUN python3.11 -m venv /build && /build/bin/python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python
ARG TORCH_INDEX=https://pypi.org/simple
ARG EXTRAS=torch,minilm,documents,image,gcp
# The configuration whose models the image carries, with their conversions; a path in the context.
ARG CONFIGURATION=deploy/dataflow.yaml
ARG RUN_AS=10001:10001

# Beam's boot program makes an environment of its own at each start, unless the variable is set.
ENV PATH=/opt/vecbeam/venv/bin:$PATH \
    RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1 \
    PYTHONSAFEPATH=1 \
    HOME=/opt/vecbeam/home \
    HF_HOME=/opt/vecbeam/models \
    VECBEAM_CACHE=/opt/vecbeam/cache
WORKDIR /opt/vecbeam/work

COPY constraints.txt /tmp/
RUN python3.11 -m venv /opt/vecbeam/venv \
    && pip install --no-cache-dir --constraint /tmp/constraints.txt --index-url "${TORCH_INDEX}" torch
COPY --from=wheel /wheels /tmp/wheels
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt "$(echo /tmp/wheels/*.whl)[${EXTRAS}]" \
    && rm -r /tmp/wheels /tmp/constraints.txt

COPY --from=beam /opt/apache/beam /opt/apache/beam
COPY deploy/images/entrypoint.sh deploy/images/fetch_models.py /opt/vecbeam/
COPY ${CONFIGURATION} /opt/vecbeam/models.yaml
RUN mkdir -p "${HOME}" "${HF_HOME}" "${VECBEAM_CACHE}" \
    && python /opt/vecbeam/fetch_models.py /opt/vecbeam/models.yaml \
    && chown -R "${RUN_AS}" /opt/vecbeam/home /opt/vecbeam/models /opt/vecbeam/cache /opt/vecbeam/work

# Where workers find Milvus's token: projects/PROJECT/secrets/milvus-token/versions/latest. It is a name: the entry point
# fetches the value when a worker starts, so that no image has it.
# hadolint ignore=DL3064
ARG MILVUS_TOKEN_SECRET=
# hadolint ignore=DL3064
ENV MILVUS_TOKEN_SECRET=${MILVUS_TOKEN_SECRET}
USER ${RUN_AS}
ENTRYPOINT ["/opt/vecbeam/entrypoint.sh"]
