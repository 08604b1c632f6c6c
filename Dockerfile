# Image of the Kubeflow components and of remote Beam workers: the locked packages and this repository.
FROM python:3.10-slim-bookworm
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
ENTRYPOINT ["python"]
