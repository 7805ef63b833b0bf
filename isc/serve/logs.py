"""Structured logs: one JSON object a line, without tokens and passwords."""

from __future__ import annotations

import json
import logging
import re
import sys
import time

SECRETS = re.compile(r"isc_[A-Za-z0-9_-]{20,}|(?<=://)[^/@\s]+(?=@)|(?i:(?<=bearer ))\S+|(?<=isc_session=)[^;\s]+")


class JsonLines(logging.Formatter):
    """Formats records as lines of JSON; secrets are replaced."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self._part = part

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "part": self._part,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            said["error"] = self.formatException(record.exc_info)
        return SECRETS.sub("***", json.dumps(said, ensure_ascii=False))


def log_as_json(part: str) -> None:
    """Let the loggers of this process write lines of JSON to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(part))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in ("isc", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.INFO)
