"""Reads the `build` section of schema.yaml into `rules`, and refuses what cannot be meant."""

import datetime
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from loopctr_tf.errors import UsageError
from loopctr_tf.features.checks import finite, known_keys, listing, mapping, one_of, positive
from loopctr_tf.features.schema import Schema, load_with_build
from loopctr_tf.prepare.rules import (
    AGES,
    TIME_UNITS,
    ColumnSplit,
    Condition,
    LastSplit,
    NegativeRule,
    Rules,
    SequenceRule,
    TableRule,
    TimeSplit,
)

_KEYS = (
    "user",
    "item",
    "time",
    "time_unit",
    "exact_order",
    "duplicates",
    "label",
    "rows",
    "columns",
    "tables",
    "sequences",
    "negatives",
    "split",
    "numeric",
)


def load_rules(path: str | Path) -> tuple[Schema, Rules]:
    """The schema to be fitted and the rules, out of one file.

    Raises:
      UsageError: for what :meth:`Schema.load` refuses, and for rules that are absent, unknown,
        impossible or do not fit the schema.
    """
    schema, build = load_with_build(path)
    if build is None:
        raise UsageError(
            f"schema {str(path)!r} has no section `build`, which says how rows are made of events; "
            "add it, e.g. build: {user: user_id, time: timestamp, ...}"
        )
    return schema, read_rules(build, schema)


def read_rules(build: Any, schema: Schema) -> Rules:
    """:class:`Rules` out of the plain values under ``build``; see :func:`load_rules`."""
    values = mapping(build, "build")
    known_keys(values, _KEYS, "build")
    for name in ("user", "time", "split", "sequences"):
        if name not in values:
            raise UsageError(f"build has no {name!r}; add it")
    negatives = _negatives(values.get("negatives"))
    if negatives is not None:
        _check_negatives(values, schema)
    return Rules(
        user=_name(values["user"], "build: user"),
        time=_name(values["time"], "build: time"),
        split=_split(values["split"]),
        sequences=_sequences(values["sequences"], schema),
        item=None if values.get("item") is None else _name(values["item"], "build: item"),
        time_unit=_chosen(values.get("time_unit", "s"), TIME_UNITS, "build: time_unit"),
        exact_order=_flag(values.get("exact_order", False), "build: exact_order"),
        duplicates=_chosen(
            values.get("duplicates", "reject"), ("reject", "keep"), "build: duplicates"
        ),
        label=_condition(values.get("label"), "build: label"),
        rows=_condition(values.get("rows"), "build: rows"),
        separators=_separators(values.get("columns") or {}),
        tables=table_rules(values.get("tables") or {}, schema, "build: tables"),
        negatives=negatives,
        fixed=_fixed(values.get("numeric") or {}, schema),
        as_written=_plain(values),
    )


def table_rules(values: Any, schema: Schema, where: str) -> dict[str, TableRule]:
    """A rule for every table of ``schema`` that is to be fitted; ``where`` is for messages.

    Raises:
      UsageError: for a table that does not exist or is not to be fitted, or a bad number.
    """
    fitted = [table.name for table in schema.tables if table.vocabulary == ()]
    rules = {}
    for name, rule in mapping(values, where).items():
        place = f"{where}: {name!r}"
        if name not in fitted:
            raise UsageError(
                f"{place} is no table of the schema with `vocabulary: []`, which are "
                f"{', '.join(fitted) or 'none'}; only such are fitted"
            )
        rule = mapping(rule, place)
        known_keys(rule, TableRule.__dataclass_fields__, place)
        for key, value in rule.items():
            positive(value, f"{place}: {key}")
        rules[name] = TableRule(**rule)
    return {name: rules.get(name, TableRule()) for name in fitted}


def fixed_numbers(names: Iterable[str], schema: Schema, where: str) -> frozenset[str]:
    """``names``, which must be of numbers of ``schema``; ``where`` is for messages."""
    numeric = {feature.name for feature in schema.all_fields() if feature.type == "numeric"}
    names = list(names)
    for name in names:
        if name not in numeric:
            raise UsageError(
                f"{where}: {name!r} is no numeric feature or field of the schema; drop it"
            )
    return frozenset(names)


def _fixed(values: Any, schema: Schema) -> frozenset[str]:
    values = mapping(values, "build: numeric")
    fixed = set()
    for name, rule in values.items():
        where = f"build: numeric: {name!r}"
        rule = mapping(rule, where)
        known_keys(rule, ("fixed",), where)
        if _flag(rule.get("fixed", False), f"{where}: fixed"):
            fixed.add(name)
    return fixed & fixed_numbers(values, schema, "build: numeric")


def _sequences(values: Any, schema: Schema) -> dict[str, SequenceRule]:
    values = mapping(values, "build: sequences")
    sequences = {sequence.name: sequence for sequence in schema.sequences}
    known_keys(values, sequences, "build: sequences")
    rules = {}
    for name, sequence in sequences.items():
        where = f"build: sequences: {name!r}"
        if name not in values:
            raise UsageError(f"{where} is missing; say which events go into it")
        rule = mapping(values[name], where)
        known_keys(rule, ("where", "before", "fields"), where)
        fields = mapping(rule.get("fields") or {}, f"{where}: fields")
        known_keys(fields, [f.name for f in sequence.fields], f"{where}: fields")
        for feature in sequence.fields:
            if feature.name not in fields:
                raise UsageError(f"{where}: fields has no {feature.name!r}; name its column")
            _name(fields[feature.name], f"{where}: field {feature.name!r}")
            if fields[feature.name] in AGES and feature.type != "numeric":
                raise UsageError(
                    f"{where}: field {feature.name!r} is {fields[feature.name]}, a number, and "
                    f"{feature.type} in the schema; make it numeric"
                )
        before = rule.get("before")
        if before is not None:
            others = [other for other in sequences if other != name]
            one_of(before, others, f"{where}: before")
        rules[name] = SequenceRule(dict(fields), _condition(rule.get("where"), where), before)
    return _in_order(rules)


def _in_order(rules: dict[str, SequenceRule]) -> dict[str, SequenceRule]:
    """Sequences after those they stand before; a ``where`` that is left out there is the other's."""
    ordered: dict[str, SequenceRule] = {}
    while len(ordered) < len(rules):
        ready = [n for n, r in rules.items() if n not in ordered and r.before in (None, *ordered)]
        if not ready:
            stuck = next(name for name in rules if name not in ordered)
            raise UsageError(
                f"build: sequences: {stuck!r} stands before itself, by way of "
                f"{rules[stuck].before!r}; let one of them stand before nothing"
            )
        for name in ready:
            rule = rules[name]
            where = rule.where
            if rule.before is not None and where is None:
                where = ordered[rule.before].where
            ordered[name] = SequenceRule(rule.fields, where, rule.before)
    return ordered


def _negatives(values: Any) -> NegativeRule | None:
    if values is None:
        return None
    where = "build: negatives"
    values = mapping(values, where)
    known_keys(values, NegativeRule.__dataclass_fields__, where)
    if "per_positive" not in values:
        raise UsageError(f"{where} has no 'per_positive'; say how many for each event")
    rule = NegativeRule(**values)
    positive(rule.per_positive, f"{where}: per_positive")
    one_of(rule.by, ("popularity", "uniform"), f"{where}: by")
    if type(rule.seed) is not int or rule.seed < 0:
        raise UsageError(f"{where}: seed is {rule.seed!r}; give a whole number of 0 or more")
    return rule


def _check_negatives(values: Mapping, schema: Schema) -> None:
    if values.get("item") is None:
        raise UsageError("build: negatives needs build: item, the column to sample from; add it")
    if values.get("label") is not None:
        raise UsageError(
            "build has both negatives and label; with negatives every event is a 1, drop one of them"
        )
    for feature in schema.candidate_features:
        if feature.side == "cross":
            raise UsageError(
                f"feature {feature.name!r} is a cross feature, which is not known of a sampled "
                "item; drop it, or build: negatives"
            )


def _split(values: Any) -> TimeSplit | LastSplit | ColumnSplit:
    where = "build: split"
    values = mapping(values, where)
    by = _chosen(values.get("by"), ("time", "last", "column"), f"{where}: by")
    if by == "column":
        return _column_split(values, where)
    if by == "time" and not {"valid", "test"} & set(values):
        known_keys(values, ("by", "valid_from", "test_from"), where)
        _needed(values, ("valid_from", "test_from"), where)
        return TimeSplit(
            **{key: _moment(values[key], f"{where}: {key}") for key in ("valid_from", "test_from")}
        )
    known_keys(values, ("by", "valid", "test"), where)
    _needed(values, ("valid", "test"), where)
    if by == "last":
        for key in ("valid", "test"):
            if type(values[key]) is not int or values[key] < 0:
                raise UsageError(f"{where}: {key} is {values[key]!r}; give a number of rows a user")
        return LastSplit(values["valid"], values["test"])
    shares = {key: finite(values[key], f"{where}: {key}") for key in ("valid", "test")}
    for key, share in shares.items():
        if not 0 <= share < 1:
            raise UsageError(f"{where}: {key} is {share:g}; give a share of the rows, e.g. 0.1")
    if sum(shares.values()) >= 1:
        raise UsageError(f"{where}: valid and test are {sum(shares.values()):g}; leave train some")
    return TimeSplit(**shares)


def _column_split(values: Mapping, where: str) -> ColumnSplit:
    known_keys(values, ("by", "column", "train", "valid", "test"), where)
    _needed(values, ("column", "train"), where)
    splits: dict[str, str] = {}
    for split in ("train", "valid", "test"):
        for text in _texts(values.get(split) or [], f"{where}: {split}"):
            if text in splits:
                raise UsageError(f"{where}: {text!r} is in {splits[text]} and {split}; keep one")
            splits[text] = split
    return ColumnSplit(_name(values["column"], f"{where}: column"), splits)


def _condition(values: Any, where: str) -> Condition | None:
    if values is None:
        return None
    values = mapping(values, where)
    known_keys(values, Condition.__dataclass_fields__, where)
    _needed(values, ("column",), where)
    column = _name(values["column"], f"{where}: column")
    if ("values" in values) == ("at_least" in values):
        raise UsageError(f"{where} needs either values or at_least, and not both")
    if "at_least" in values:
        return Condition(column, at_least=finite(values["at_least"], f"{where}: at_least"))
    texts = _texts(values["values"], f"{where}: values")
    if not texts:
        raise UsageError(f"{where}: values is empty; list at least one")
    return Condition(column, values=texts)


def _separators(values: Any) -> dict[str, str]:
    separators = {}
    for name, rule in mapping(values, "build: columns").items():
        where = f"build: columns: {name!r}"
        rule = mapping(rule, where)
        known_keys(rule, ("separator",), where)
        separator = rule.get("separator")
        if not isinstance(separator, str) or not separator:
            raise UsageError(f'{where}: separator is {separator!r}; give text such as "|"')
        separators[name] = separator
    return separators


def _texts(values: Any, where: str) -> tuple[str, ...]:
    texts = []
    for value in listing(values, where):
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise UsageError(f"{where} holds {value!r}; give text or whole numbers, quote others")
        texts.append(str(value))
    return tuple(texts)


def _moment(value: Any, where: str) -> str | float | int:
    """A number in ``time_unit`` or ISO text; YAML makes dates of their own kind."""
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return value
    raise UsageError(f"{where} is {value!r}; give a date such as 2024-01-31, or a number")


def _needed(values: Mapping, names: tuple[str, ...], where: str) -> None:
    for name in names:
        if name not in values:
            raise UsageError(f"{where} has no {name!r}; add it")


def _name(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise UsageError(f"{where} is {value!r}; name a column")
    return value


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{where} is {value!r}; write true or false")
    return value


def _chosen(value: Any, known: tuple[str, ...], where: str) -> str:
    one_of(value, known, where)
    return value


def _plain(value: Any) -> Any:
    """Values that JSON can hold."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    return value
