# Formicary: queen, ant and command line in one image.
#
#   docker build --tag formicary:0.1.0 .
#
# BASE_IMAGE may be any image with Python 3.11 or newer, its venv module and a shell.
# What pip has to know (an index, a certificate) it takes from the environment of that image: PIP_INDEX_URL, PIP_CERT.
ARG BASE_IMAGE=python:3.13.9-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG EXTRAS=redis,kafka,pulsar,s3
WORKDIR /source
COPY pyproject.toml README.md LICENSE schema.sql ./
COPY formicary formicary
COPY brokers brokers
COPY executors executors
RUN python3 -m venv /opt/formicary \
 && /opt/formicary/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-compile ".[${EXTRAS}]" \
 && /opt/formicary/bin/python -m pip uninstall --yes --quiet --disable-pip-version-check pip

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="Formicary" \
      org.opencontainers.image.description="An asyncio-native job orchestrator" \
      org.opencontainers.image.licenses="Apache-2.0"
# Numbers, so that "must not run as root" can be checked from outside; the folder is there for volumes to take its owner from.
RUN mkdir -p /var/lib/formicary/artifacts \
 && echo 'formicary:x:10001:10001:Formicary:/var/lib/formicary:/bin/sh' >> /etc/passwd \
 && echo 'formicary:x:10001:' >> /etc/group \
 && chown -R 10001:10001 /var/lib/formicary
COPY --from=build /opt/formicary /opt/formicary
ENV PATH=/opt/formicary/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/var/lib/formicary \
    FORMICARY_HOME=/var/lib/formicary \
    FORMICARY_LOG_FORMAT=json
USER 10001:10001
WORKDIR /var/lib/formicary
VOLUME ["/var/lib/formicary"]
# Run it with an init (compose: init: true; docker run --init): what scripts leave behind has to be reaped.
STOPSIGNAL SIGTERM
ENTRYPOINT ["formicary"]
CMD ["--help"]
