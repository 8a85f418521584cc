# Image of the Flex Template: Google's launcher in the image of the CPU workers.
#
#   docker build --file deploy/images/flex.Dockerfile --build-arg WORKER=REGION-docker.pkg.dev/PROJECT/vecbeam/cpu:0.1.0 \
#     --tag REGION-docker.pkg.dev/PROJECT/vecbeam/flex:0.1.0 deploy/images
ARG WORKER=vecbeam/cpu:0.1.0
# Its launcher alone is copied, so its version of Python does not matter.
ARG LAUNCHER=gcr.io/dataflow-templates-base/python312-template-launcher-base:flex_templates_base_image_release_20260112_RC00

FROM ${LAUNCHER} AS launcher

FROM ${WORKER}
COPY --from=launcher /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher
COPY flex_embed.py /opt/vecbeam/flex_embed.py
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/opt/vecbeam/flex_embed.py
ENTRYPOINT ["/opt/google/dataflow/python_template_launcher"]
