"""The base of everything that is read from YAML: pydantic models whose errors are one line each.

Settings, schemas and rules derive from :class:`Settings`. The constructor and :meth:`Settings.from_dict`
raise :class:`~loopctr_tf.errors.UsageError` with the thing, the value received and the remedy.
"""

import difflib
import numbers
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pydantic
import yaml

from loopctr_tf.errors import UsageError


def _number_of_text(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Number = Annotated[float, pydantic.BeforeValidator(_number_of_text), pydantic.AllowInfNan(False)]
"""A finite float; whole numbers and YAML's ``1e-3`` are accepted too."""
Share = Annotated[Number, pydantic.Field(ge=0, le=1)]
"""A number from 0 to 1."""


class Settings(pydantic.BaseModel):
    """A frozen group of settings without unknown keys; its attributes' docstrings are the help."""

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )

    what: ClassVar[str] = "setting"
    """How messages call one of the keys, e.g. "model setting"."""

    def __init__(self, *positional: Any, **values: Any):
        values |= zip(type(self).model_fields, positional, strict=False)
        try:
            super().__init__(**values)
        except pydantic.ValidationError as error:
            raise usage_error(error, type(self), self.subject(values)) from None

    @classmethod
    def subject(cls, values: Mapping[str, Any]) -> str:
        """What stands in front of the name of a bad value, e.g. ``feature 'age': ``."""
        return ""

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, ready for JSON or YAML."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Settings":
        """The inverse of :meth:`to_dict`; UsageError for unknown keys and bad values."""
        return cls(**mapping(values, cls.what + "s"))

    def replace(self, **changes: Any) -> "Settings":
        """A copy with other values, checked again."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**{**values, **changes})

    @classmethod
    def help_text(cls) -> str:
        """One ``name: description`` paragraph for each setting."""
        lines = []
        for name, field in cls.model_fields.items():
            described = " ".join((field.description or "").split())
            lines.append(f"  {name}: {described}")
        return "\n".join(lines)


def mapping(values: Any, where: str) -> dict[str, Any]:
    """``values`` as a dict with text keys; UsageError where it is not a mapping."""
    if not isinstance(values, Mapping):
        raise UsageError(f"{where} is {values!r}; write `name: value` lines")
    return {str(name): value for name, value in values.items()}


def listing(values: Any, where: str) -> list:
    """``values`` as a list; UsageError where it is none."""
    if not isinstance(values, (list, tuple)):
        raise UsageError(f"{where} is {values!r}; write a list")
    return list(values)


def is_int64(value: Any) -> bool:
    """Whether ``value`` is a whole number that int64 holds."""
    # The first test alone decides for vocabularies, which may have millions of values.
    whole = type(value) is int or (
        isinstance(value, numbers.Integral) and not isinstance(value, bool)
    )
    return whole and -(2**63) <= value < 2**63


def suggestion(name: str, known: Iterable[str]) -> str:
    """``; did you mean ...?`` for a misspelt name, or the list of known ones."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"


_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list such as [128, 64]",
    "list_type": "a list",
    "dict_type": "`name: value` lines",
    "model_type": "`name: value` lines",
}
_ITEMS = {"too_short": "value", "string_too_short": "letter"}
_BOUNDS = {
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
}


def usage_error(
    error: pydantic.ValidationError, cls: type[Settings], where: str = ""
) -> UsageError:
    """The first problem of ``error`` as one line: the thing, the value received, the remedy."""
    found = error.errors(include_url=False)[0]
    kind, context, value = found["type"], found.get("ctx", {}), found["input"]
    cause, name = context.get("error"), _place(found["loc"])
    if isinstance(cause, UsageError):
        return UsageError(f"{where}{name}: {cause}") if name else cause
    if kind == "extra_forbidden":
        return UsageError(
            f"{where}{cls.what} {found['loc'][-1]!r} does not exist"
            + suggestion(found["loc"][-1], cls.model_fields)
        )
    if kind == "missing":
        return UsageError(f"{where}{cls.what} {name!r} is missing; add it")
    subject = f"{where}{name} is {value!r}"
    if kind in _TYPES:
        article = "an" if type(value).__name__[0] in "aeiou" else "a"
        return UsageError(f"{subject}, {article} {type(value).__name__}; give {_TYPES[kind]}")
    if kind in ("too_short", "string_too_short"):
        return UsageError(f"{where}{name} is empty; give at least one {_ITEMS[kind]}")
    if kind == "union_tag_invalid":
        key = f"{name}: {context['discriminator']}".replace("'", "")
        return UsageError(f"{where}{key} is {context['tag']!r}; choose {context['expected_tags']}")
    if kind == "union_tag_not_found":
        key = context["discriminator"]
        return UsageError(f"{where}{name} has no {key}; add it")
    if kind in _BOUNDS:
        return UsageError(f"{subject}; give {_BOUNDS[kind].format(**context)}")
    if kind in ("literal_error", "enum"):
        return UsageError(f"{subject}; choose {context['expected']}")
    return UsageError(f"{subject}; {str(cause or found['msg']).rstrip('.')}")


def _place(location: tuple[int | str, ...]) -> str:
    """``("tower_units", 0)`` as ``tower_units[0]``."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".")


def read_yaml(path: str | Path, what: str) -> dict[str, Any]:
    """The mapping in a YAML file, {} for an empty one; UsageError, which names ``what``, otherwise."""
    try:
        loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{what} {str(path)!r} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise UsageError(f"{what} {str(path)!r} is not YAML: {problem}") from error
    return mapping({} if loaded is None else loaded, f"{what} {str(path)!r}")


def parse_pair(pair: str) -> tuple[str, Any]:
    """``name=value`` of ``--set`` as (name, value), the value read as YAML."""
    name, separator, text = pair.partition("=")
    if not separator:
        raise UsageError(f"--set {pair!r} is not a setting; write name=value, e.g. dim=32")
    try:
        return name.strip(), yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {name}={text!r} is not a YAML value; quote it") from error
