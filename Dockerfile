# syntax=docker/dockerfile:1
# One image for every role: `docker run tidewarden:dev run detect …`. What is how large, and why: docs/decisions/0009.
ARG PYTHON_IMAGE=python:3.11-slim

# Dependencies, exactly as locked.
FROM ${PYTHON_IMAGE} AS dependencies
RUN python3 -m venv /opt/venv
COPY requirements.lock /
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/pip install --disable-pip-version-check --no-compile -r /requirements.lock

# The same, less what no pod loads. Byte code is made here, as nobody could keep it on a read-only root.
FROM dependencies AS slim
COPY image/prune image/prune
RUN sh image/prune && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib || test $? = 1

# Our own packages, and the kernels compiled. "generic" code runs on every machine of the architecture: compiled for the
# machine of the build it would be compiled anew, for a minute, by every pod on another kind of machine.
FROM dependencies AS build
ENV NUMBA_CPU_NAME=generic NUMBA_CPU_FEATURES="" PYTHONPATH=/opt/tidewarden/lib
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY tidewarden tidewarden
COPY simulator simulator
COPY services services
COPY operator operator
COPY image/check_kernels.py image/
# Kernels are kept between builds for as long as nothing changes that they are made of: the library, the simulator and
# whatever else is compiled. Numba alone would not see an edit of what is compiled into another file.
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=cache,target=/root/.cache/kernels \
    /opt/venv/bin/pip install --disable-pip-version-check --no-compile --no-deps --target /opt/tidewarden/lib . \
    && made_of=$( (find tidewarden simulator -name '*.py'; grep -rl njit services) | sort | xargs cat /requirements.lock \
        | sha256sum | cut -c1-16) \
    && export NUMBA_CACHE_DIR=/root/.cache/kernels/$made_of \
    # From elsewhere: here the packages would be imported from the sources, and numba files kernels under the module's path.
    && cd / && /opt/venv/bin/python -m tidewarden_cli.warm --all && cp -R "$NUMBA_CACHE_DIR" /opt/tidewarden/kernels \
    && /opt/venv/bin/python /build/image/check_kernels.py \
    && find /opt/tidewarden/lib -name __pycache__ -prune -exec rm -rf {} + \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/tidewarden/lib

FROM ${PYTHON_IMAGE}
# The user has a name, as libraries ask for it.
RUN echo 'tidewarden:x:10001:' >> /etc/group && echo 'tidewarden:x:10001:10001::/tmp:/usr/sbin/nologin' >> /etc/passwd \
    && mkdir -p /var/cache/tidewarden && chown 10001:10001 /var/cache/tidewarden
COPY --from=slim /opt/venv /opt/venv
COPY --from=build /opt/tidewarden /opt/tidewarden
COPY --chmod=755 image/tidewarden /opt/tidewarden/bin/tidewarden
ENV PATH=/opt/tidewarden/bin:/opt/venv/bin:$PATH PYTHONPATH=/opt/tidewarden/lib HOME=/tmp \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    NUMBA_CACHE_DIR=/var/cache/tidewarden NUMBA_CPU_NAME=generic NUMBA_CPU_FEATURES=""
USER 10001:10001
ENTRYPOINT ["tidewarden"]
