# Three images from one file: operator (the watcher and every step), tuning, serving. The last two share their heavy layer.
#
#   make images REGISTRY=myregistry.azurecr.io/kaito
#
# A fourth, serving-vllm, is built where ROLES names it. It was never built where this was written: no registry had its base.
#
# BASE is any Debian or python-slim image whose python3 is 3.11 or newer. TORCH is another version of torch than the pinned
# one, for GPUs that it has no kernels for; requirements/model-torch-TORCH.txt, which make writes, has it with hashes.
ARG BASE=docker.io/library/python:3.11-slim-bookworm
ARG TORCH=
# Upstream's own, for the image serving-vllm alone; tests/serving/vllm has the signatures of this release.
ARG VLLM=docker.io/vllm/vllm-openai:v0.33.0

FROM ${BASE} AS base
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates skopeo \
 && { command -v python3 || apt-get install --yes --no-install-recommends python3; } \
 && rm -rf /var/lib/apt/lists/*
# What is installed is compiled here once: the file system is read-only where it runs.
ENV PYTHONPATH=/app:/opt/python PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
WORKDIR /app

FROM base AS installer
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv \
 && python3 -m venv /opt/uv && PIP_CERT=${SSL_CERT_FILE} /opt/uv/bin/pip install --quiet --no-cache-dir uv==0.13.8
COPY requirements/operator.txt /tmp/
RUN /opt/uv/bin/uv pip install --python "$(command -v python3)" --no-cache --compile-bytecode --require-hashes \
      --target /opt/python -r /tmp/operator.txt

FROM base AS operator
COPY --from=installer /opt/python /opt/python
COPY presets /app/presets
COPY artifacts /app/artifacts
COPY kaito_hera /app/kaito_hera
COPY workflows /app/workflows
COPY tuning /app/tuning
COPY serving /app/serving
RUN python3 -m compileall -q /app
USER 65532:65532
CMD ["python3", "-m", "workflows", "watch"]

# Installed in place: to copy this layer from another stage would need its 5.5 GB twice.
FROM base AS model
COPY --from=installer /opt/uv/bin/uv /usr/local/bin/uv
ARG TORCH
COPY requirements/model${TORCH:+-torch-$TORCH}.txt /tmp/model.txt
RUN uv pip install --python "$(command -v python3)" --no-cache --compile-bytecode --require-hashes \
      --target /opt/python -r /tmp/model.txt

FROM model AS tuning
COPY presets /app/presets
COPY artifacts /app/artifacts
COPY tuning /app/tuning
RUN python3 -m compileall -q /app
USER 65532:65532
ENTRYPOINT ["python3", "-m", "tuning"]

# What the operator has to know of torch without pulling it: `make images` takes the file out, `make install` tells it.
FROM tuning AS asked
RUN python3 -m tuning.training.kernels > /tmp/kernels.json

FROM scratch AS kernels
COPY --from=asked /tmp/kernels.json /

FROM model AS serving
COPY presets /app/presets
COPY artifacts /app/artifacts
COPY serving /app/serving
RUN python3 -m compileall -q /app
USER 65532:65532
ENTRYPOINT ["python3", "-m", "serving"]

# vLLM's Python stays as upstream made it: beside it comes what Ray Serve needs and it lacks, without dependencies.
FROM ${VLLM} AS serving-vllm
USER root
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates skopeo \
 && rm -rf /var/lib/apt/lists/*
COPY --from=installer /opt/uv/bin/uv /usr/local/bin/uv
COPY requirements/vllm.txt /tmp/
RUN uv pip install --python "$(command -v python3)" --no-cache --compile-bytecode --require-hashes --no-deps \
      --target /opt/python -r /tmp/vllm.txt
# The user has no entry in /etc/passwd, and torch's compiler asks for its name.
ENV PYTHONPATH=/app:/opt/python PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp USER=kaito \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    VLLM_WORKER_MULTIPROC_METHOD=spawn VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
WORKDIR /app
COPY presets /app/presets
COPY artifacts /app/artifacts
COPY serving /app/serving
RUN python3 -m compileall -q /app
USER 65532:65532
ENTRYPOINT ["python3", "-m", "serving"]
CMD []
