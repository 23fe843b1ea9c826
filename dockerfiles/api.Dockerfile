# The service with its model: no torch, no compiler, nobody's root. Build from the project's root:
#   docker build -f dockerfiles/api.Dockerfile -t emotion-yolo-api .
#   docker run --read-only -p 8000:8000 emotion-yolo-api
FROM python:3.11-slim AS build
WORKDIR /app
COPY requirements/api.txt requirements/api.txt
RUN python -m venv /app/venv && /app/venv/bin/python -m pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/api.txt
COPY src src
COPY api api
COPY models/release models/release
# Compiled here, because the root file system is read-only later and a start should not wait for it.
RUN rm -f models/release/weights.pt && /app/venv/bin/python -m compileall -q src api

FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin service
WORKDIR /app
COPY --from=build /app /app
ENV PYTHONPATH=/app/src:/app \
    PYTHONDONTWRITEBYTECODE=1 \
    EMOTION_HOST=0.0.0.0 \
    EMOTION_MODEL=/app/models/release
USER 10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["/app/venv/bin/python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
CMD ["/app/venv/bin/python", "-m", "api"]
