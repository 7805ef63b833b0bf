# Three images: `light` finds, indexes, matches and judges on a CPU; `serve` is the review service; the last one, `full`,
# also trains, on a GPU or without one. The wheels of torch and faiss-gpu bring the CUDA runtime with them, so the base
# needs none; for a GPU the host needs NVIDIA's driver and container toolkit. --ipc=host: photos go from the reading
# processes to the GPU's through shared memory, of which a container has 64 MB without it.
#   docker build -t isc:light --target light .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" isc:light isc find photos inbox
#   docker build -t isc .
#   docker run --rm --gpus all --ipc=host --user "$(id -u):$(id -g)" -v "$PWD:/data" isc isc extract images=photos output=photos.h5
FROM python:3.12-slim AS light

ENV PYTHONUNBUFFERED=1 HOME=/tmp
WORKDIR /opt/isc
COPY setup.cfg pyproject.toml requirements.lock LICENSE THIRD_PARTY.md README.md ./
COPY isc isc
RUN python -m venv --without-pip .venv \
 && /usr/local/bin/python -m pip --python .venv/bin/python install --no-cache-dir -c requirements.lock .

ENV PATH=/opt/isc/.venv/bin:$PATH
# by its number, so that a host which forbids root can see that it is none
RUN useradd --uid 1000 --create-home isc
USER 1000
WORKDIR /data
CMD ["isc", "--help"]

# /usr/local/bin/python has pip; the one of .venv, which PATH finds first, has none
# the review service: docker compose up (docker-compose.yml)
FROM light AS serve

USER 0
WORKDIR /opt/isc
RUN /usr/local/bin/python -m pip --python .venv/bin/python install --no-cache-dir -c requirements.lock '.[serve]' \
 && mkdir /data && chown isc /data
USER 1000
WORKDIR /data
VOLUME /data
EXPOSE 8008
CMD ["isc", "serve", "--data", "/data", "--host", "0.0.0.0"]

FROM light AS full

ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 0
# g++ for compile=true, train.compile=true and Triton, which compile when they run
# text and emoji of the training views; without them Pillow's own font and drawn faces are used
# without versions: the base image fixes Debian's release, which keeps no older ones
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ fonts-noto-color-emoji fonts-noto-core fonts-dejavu-core \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/isc
RUN /usr/local/bin/python -m pip --python .venv/bin/python install --no-cache-dir -c requirements.lock '.[gpu]'
USER 1000
WORKDIR /data
