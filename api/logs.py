"""Logs: one JSON object a line on stdout, with what is passed as `extra={"fields": {...}}`; never a picture."""

import json
import logging
import sys
from datetime import UTC, datetime

LOGGER = logging.getLogger("emotion_yolo.api")


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        members = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            members["exception"] = self.formatException(record.exc_info)
        return json.dumps(members, ensure_ascii=False, default=str)


def configure(level: str) -> None:
    """Send this service's logs and uvicorn's to stdout as JSON."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    for name in (LOGGER.name, "uvicorn", "py.warnings"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level.upper())
    logging.getLogger("uvicorn.error").handlers = []  # its records climb to `uvicorn`
    logging.captureWarnings(True)
