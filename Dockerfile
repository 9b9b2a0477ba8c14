# Three images from one file: operator (the watcher and every step), tuning, serving. The last two share their heavy layer.
#
#   make images REGISTRY=myregistry.azurecr.io/kaito
#
# BASE is any Debian or python-slim image whose python3 is 3.11 or newer. TORCH is another version of torch than the pinned
# one, for GPUs that it has no kernels for; requirements/model-torch-TORCH.txt, which make writes, has it with hashes.
ARG BASE=docker.io/library/python:3.11-slim-bookworm
ARG TORCH=

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
