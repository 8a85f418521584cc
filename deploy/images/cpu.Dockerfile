# Image for workers without a GPU, and the base of the images that start runs. The context is the root of the repository:
#
#   docker build --file deploy/images/cpu.Dockerfile --tag REGION-docker.pkg.dev/PROJECT/vecbeam/cpu:0.1.0 .
#
# The versions of Python and Beam must be those of the machine that starts the job.
ARG BASE=python:3.11-slim-bookworm
ARG BEAM=apache/beam_python3.11_sdk:2.77.0

FROM ${BEAM} AS beam

# The wheel, with the kernels for AMX. The image gets the wheel alone: sources next to it would hide the installation.
FROM ${BASE} AS wheel
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

FROM ${BASE}
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=torch,minilm,documents,openvino,gcp
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
# torch first, from its own index: the index has builds for the CPU alone, which are a tenth of the size.
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
