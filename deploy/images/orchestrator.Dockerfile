# Image that starts a run and waits for it: a Cloud Run job, a CronJob, a step of CI.
#
#   docker build --file deploy/images/orchestrator.Dockerfile --build-arg WORKER=REGION-docker.pkg.dev/PROJECT/vecbeam/cpu:0.1.0 \
#     --tag REGION-docker.pkg.dev/PROJECT/vecbeam/orchestrator:0.1.0 deploy/images
#
# It is the image of the CPU workers with another entry point, so that Python, Beam and vecbeam are theirs.
ARG WORKER=vecbeam/cpu:0.1.0
FROM ${WORKER}
ENTRYPOINT ["vecbeam"]
CMD ["--help"]
