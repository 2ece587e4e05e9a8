# segtrain on a CPU: docker build -t segtrain .
# Train in the current folder: docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" segtrain name=first
FROM python:3.12-slim

# PyTorch's builds for the CPU alone are small; those of the package index bring CUDA. Both packages from one index fit.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" torch torchvision

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY conf conf
COPY segtrain segtrain
# hadolint ignore=DL3013
RUN pip install --no-cache-dir '.[export]'

# A user of any number may run it: caches go where everyone may write.
ENV HOME=/tmp MPLCONFIGDIR=/tmp
WORKDIR /work
RUN chmod 777 /work
USER 1000
ENTRYPOINT ["segtrain"]
CMD ["--help"]
