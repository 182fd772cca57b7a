"""Files and folders that appear whole or not at all."""

import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loopctr_tf.errors import UsageError


def require_new(path: str | Path) -> Path:
    """``path`` as a Path; UsageError when it exists."""
    path = Path(path)
    if path.exists():
        raise UsageError(f"{str(path)!r} exists; remove it or name another")
    return path


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A temporary sibling of ``path`` that is renamed to it when the block ends without an error.

    Raises:
      UsageError: when ``path`` exists.
    """
    path = require_new(path)
    temporary = path.with_name(f".{path.name}.partial-{uuid.uuid4().hex[:8]}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def json_text(values: Any) -> str:
    """Indented JSON; NaN and infinities, which JSON does not have, become null."""
    return json.dumps(_finite(values), indent=2, allow_nan=False)


def write_text(path: str | Path, text: str) -> None:
    """Writes ``text`` to a temporary file, then renames it to ``path``."""
    path = Path(path)
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_json(path: str | Path, values: Any) -> None:
    """Writes :func:`json_text` as :func:`write_text` does."""
    write_text(path, json_text(values) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
