# The pipeline: `dvc repro` in a container, on a GPU where `--gpus all` gives it one.
#   docker build -f dockerfiles/train.Dockerfile -t emotion-yolo-train .
#   docker run --gpus all --shm-size 2g -v "$PWD":/project -w /project --user "$(id -u):$(id -g)" emotion-yolo-train
FROM python:3.11-slim
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# DVC reads the project's history with git. Its version is the distribution's: pinning it breaks with each fix of theirs.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends git && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY requirements/bootstrap.txt requirements/train.txt requirements/
# uv, because pip would install the OpenCV that needs a display's libraries; requirements/train.txt leaves it out.
RUN python -m venv /app/venv \
    && /app/venv/bin/python -m pip install --no-cache-dir --no-deps --require-hashes -r requirements/bootstrap.txt \
    && /app/venv/bin/uv pip sync --no-cache --python /app/venv/bin/python --require-hashes requirements/train.txt
RUN useradd --uid 10001 --create-home trainer
ENV PATH=/app/venv/bin:$PATH \
    PYTHONPATH=/project/src:/project \
    DVC_NO_ANALYTICS=1 \
    HOME=/home/trainer
USER 10001
WORKDIR /project
CMD ["dvc", "repro"]
