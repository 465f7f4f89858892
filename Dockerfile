# The gateway with its bundled models. Two stages: what builds the packages does not end up in the image.
FROM python:3.11-slim AS build
# pip reads these: name an index here to take packages, such as a CPU-only torch, from another place.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN python -m venv /opt/pointsman
WORKDIR /src
# Dependencies first: they change rarely, so the layer is kept while the code changes.
COPY pyproject.toml ./
RUN python -c "import tomllib; print('\n'.join(tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies']))" > requirements.txt \
    && /opt/pointsman/bin/pip install --no-cache-dir --requirement requirements.txt
COPY . .
# The C kernels are compiled into the package: the image that runs has no compiler. Elsewhere than on x86-64 torch computes.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/* \
    && /opt/pointsman/bin/pip install --no-cache-dir --no-deps . \
    && cd /tmp && { /opt/pointsman/bin/python -m kernels.native || true; }

FROM python:3.11-slim
# On a GPU Triton needs a C compiler where it runs (compose.gpu.yaml).
ARG RUNTIME_PACKAGES=""
RUN [ -z "$RUNTIME_PACKAGES" ] || { apt-get update && apt-get install --yes --no-install-recommends $RUNTIME_PACKAGES \
    && rm -rf /var/lib/apt/lists/*; }
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent pointsman \
    && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/pointsman /var/cache/triton
COPY --from=build /opt/pointsman /opt/pointsman
ENV PATH=/opt/pointsman/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1 \
    TRITON_CACHE_DIR=/tmp/triton \
    POINTSMAN_HOST=0.0.0.0 \
    POINTSMAN_PORT=8000 \
    POINTSMAN_DATA_DIR=/var/lib/pointsman
USER 10001:10001
VOLUME /var/lib/pointsman
EXPOSE 8000
# Slim images have no curl.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=2)"]
# SIGTERM drains; give the container at least POINTSMAN_SHUTDOWN_GRACE_S before it is killed.
ENTRYPOINT ["pointsman"]
CMD ["serve"]
