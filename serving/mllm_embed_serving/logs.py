"""What the server logs, as text or as JSON: one line per request with numbers and names, never with content."""

from __future__ import annotations

import json
import logging
from typing import Any, Literal

LogFormat = Literal["text", "json"]
ACCESS = logging.getLogger("mllm_embed_serving.access")
"""One record per answered request; what it holds is in its attribute `access`."""


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, and the fields of an access record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        access = getattr(record, "access", None)
        line |= access if access is not None else {"message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_access(level: int, fields: dict[str, str | int]) -> None:
    """Log one request, as `name=value` pairs where the format is text."""
    text = " ".join(f"{name}={value}" for name, value in fields.items())
    ACCESS.log(level, "%s", text, extra={"access": fields})


def set_up(level: str, form: LogFormat) -> None:
    """Log everything of ours to stderr."""
    handler = logging.StreamHandler()
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if form == "json" else plain)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for chatty in ("httpx", "uvicorn.error"):  # the first would log every media URL that it fetches
        logging.getLogger(chatty).setLevel(logging.WARNING)
