# Two images with the locked packages and this repository: Kubeflow components (the default), and remote Beam workers
# (--target worker, see docs/runners.md).
FROM python:3.10-slim-bookworm AS base
WORKDIR /terrapair
RUN pip install --no-cache-dir uv==0.8.17
COPY requirements.txt .
RUN uv pip install --system --no-cache --require-hashes --requirement requirements.txt
COPY beam_jobs beam_jobs
COPY models models
COPY components components
COPY pipeline pipeline
# TF_USE_LEGACY_KERAS: tensorflow-transform would choose Keras 2 for everybody.
ENV PYTHONPATH=/terrapair TF_CPP_MIN_LOG_LEVEL=3 TF_USE_LEGACY_KERAS=0

FROM base AS worker
# Beam's boot program starts the workers that a runner asks for. Its version is that of apache-beam in requirements.txt.
COPY --from=apache/beam_python3.10_sdk:2.74.0 /opt/apache/beam /opt/apache/beam
ENTRYPOINT ["/opt/apache/beam/boot"]

FROM base AS components
ENTRYPOINT ["python"]
