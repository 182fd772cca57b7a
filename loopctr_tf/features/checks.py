"""Checks of values out of YAML: each raises a UsageError that names the place, the value, the remedy."""

import keyword
import math
import numbers
import re
from collections.abc import Iterable, Mapping
from typing import Any

from loopctr_tf.errors import UsageError


def mapping(values: Any, where: str) -> Mapping[str, Any]:
    """``values``, which must be a mapping."""
    if not isinstance(values, Mapping):
        raise UsageError(f"{where} is {values!r}; write `name: value` lines")
    return values


def listing(values: Any, where: str) -> list:
    """``values`` as a list, which it must be."""
    if not isinstance(values, (list, tuple)):
        raise UsageError(f"{where} is {values!r}; write a list")
    return list(values)


def known_keys(values: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Every key must be one of ``known``."""
    known = list(known)
    for name in values:
        if name not in known:
            raise UsageError(f"{where} has an unknown key {name!r}; known are {', '.join(known)}")


def one_of(value: Any, known: Iterable[str], where: str) -> None:
    """``value`` must be one of ``known``."""
    if value not in tuple(known):
        raise UsageError(f"{where} is {value!r}; choose {', '.join(known)}")


def positive(value: Any, where: str) -> None:
    """``value`` must be a whole number of 1 or more."""
    if type(value) is not int or value < 1:
        raise UsageError(f"{where} is {value!r}; give a whole number of 1 or more")


def finite(value: Any, where: str) -> float:
    """``value`` as Python's float: NumPy's cannot be written to YAML."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise UsageError(f"{where} is {value!r}; give a number")
    return float(value)


def is_int64(value: Any) -> bool:
    """Whether ``value`` is a whole number that int64 holds."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and -(2**63) <= value < 2**63


def unique_names(names: list[str], what: str) -> None:
    """Every name must be text, and none be there twice."""
    for name in names:
        if not isinstance(name, str) or not name:
            raise UsageError(f"{what} name {name!r} is not text; give a name")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(f"{what} name {sorted(twice)[0]!r} is used twice; names must be unique")


def input_names(names: list[str]) -> None:
    """Such names become inputs of the SavedModel's signatures, which are arguments of a function."""
    folded = [name.lower() for name in names]
    for name in names:
        taken = name in ("self", "inputs", "refine_top_k") or name.startswith("state_")
        if not (name.isascii() and name.isidentifier()) or keyword.iskeyword(name) or taken:
            raise UsageError(
                f"column name {name!r} cannot be the name of a model input; rename it: letters, digits "
                "and '_', no Python keyword, not self, inputs, refine_top_k or state_..."
            )
        if folded.count(name.lower()) > 1:
            raise UsageError(
                f"column name {name!r} differs from another in case alone; rename one of them"
            )


def plain_names(names: list[str], what: str) -> None:
    """Such names become names of variables and files."""
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise UsageError(
                f"{what} name {name!r} must be letters, digits, '_', '-' and '.', a letter or "
                "digit first; rename it"
            )
