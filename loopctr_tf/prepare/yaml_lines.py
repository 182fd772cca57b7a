"""Lines of YAML with comments, for files that people read."""

import json
import re
import textwrap
from collections.abc import Mapping
from typing import Any

import yaml

Lines = list[tuple[str, str]]
"""(text, comment), either may be empty."""
_WIDTH = 100


def rendered(text: str, comment: str) -> str:
    """A line followed by its comment, or the comment above it if both are too long for one line."""
    if not comment:
        return f"{text}\n"
    if text and len(text) + len(comment) + 4 <= _WIDTH:
        return f"{text}  # {comment}\n"
    indent = re.match(" *", text)[0]
    lines = textwrap.fill(
        comment, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
    )
    return f"{lines}\n" + (f"{text}\n" if text else "")


def flow(value: Any) -> str:
    """YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(k)}: {flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    return scalar(value)


def scalar(value: Any) -> str:
    """A plain word if YAML reads it as text, else a JSON value, which is valid YAML."""
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value)
    if plain and yaml.safe_load(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)
