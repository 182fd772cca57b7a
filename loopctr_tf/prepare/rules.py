"""The `build` section of schema.yaml: how events become rows, histories, splits and vocabularies.

All of its keys::

    build:
      user: user_id            # columns of the events
      item: item_id            # needed for negatives and for an item table
      time: timestamp          # numbers, or ISO dates
      time_unit: s             # s, ms, us or ns, of numbers
      exact_order: false       # true: events of one time happened in the order of the files
      duplicates: reject       # events equal in all columns read; or keep
      label: {column: rating, at_least: 4}   # or {column: event, values: [click]}; by default
                               # the schema's label column, of 0 and 1
      rows: {column: event, values: [impression, click]}   # events that become rows; by default all
      columns: {genres: {separator: "|"}}    # a list in one cell
      tables: {item: {min_count: 5, max_size: 100000}}     # of tables with `vocabulary: []`
      sequences:               # all sequences of the schema, with a source for each field
        clicks: {where: {column: label, values: [1]}, fields: {clicks_item: item_id}}
        older_clicks: {before: clicks, fields: {older_clicks_item: item_id}}
      negatives: {per_positive: 4, by: popularity, seed: 1}   # or by: uniform; all events are positive
      split: {by: time, valid: 0.1, test: 0.1}             # shares of the rows, latest last; or
                               # {by: time, valid_from: 2024-05-01, test_from: 2024-05-08}
                               # {by: last, valid: 1, test: 1}      the last rows of each user
                               # {by: column, column: part, train: [a], valid: [b], test: [c]}
      numeric: {price: {fixed: true}}        # keeps the schema's mean, std and default

A feature takes the column of its own name from the events, else from the item or user table. The source
of a field is a column of the events, else of the item table; the schema's label; or ``hours_before`` /
``days_before``, the time between the event and the row. ``before: clicks`` selects the events before
those in ``clicks``, by the same condition unless it has its own ``where``.
"""

import datetime
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema, load_with_build
from loopctr_tf.settings import Number, Settings, listing, mapping, suggestion

AGES = {"hours_before": 3_600_000_000, "days_before": 86_400_000_000}
"""Sources of a field that are ages, with their unit in microseconds."""


def _texts(values: Any) -> tuple[str, ...]:
    """Text, with whole numbers as text: conditions compare text."""
    texts = listing(values, "this")
    for value in texts:
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise UsageError(f"one is {value!r}; give text or whole numbers, quote others")
    return tuple(map(str, texts))


def _plain(value: Any) -> Any:
    """Values that JSON can represent; YAML dates become text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime.date) else value


Column = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]


def _moment(value: Any) -> str | int | float:
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise UsageError(f"it is {value!r}; give a date such as 2024-01-31, or a number")
    return value


Moment = Annotated[str | int | float, BeforeValidator(_moment)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class Rule(Settings):
    """Base class of the section's parts."""

    what: ClassVar[str] = "key"


class Condition(Rule):
    """Events whose ``column`` is one of ``values`` (compared as text), or a number >= ``at_least``."""

    column: Column
    values: Annotated[Texts, Field(min_length=1)] | None = None
    at_least: Number | None = None

    @model_validator(mode="after")
    def _check(self):
        if (self.values is None) == (self.at_least is None):
            raise UsageError("give either values or at_least, and not both")
        return self


class SequenceRule(Rule):
    """Which events are in a sequence, and the sources of its fields."""

    fields: dict[str, Column]
    """The source of each field."""
    where: Condition | None = None
    """Which events; null means all."""
    before: str | None = None
    """Name of another sequence; this one has the events before it."""


class TableRule(Rule):
    """Which values a vocabulary contains."""

    min_count: Positive = 1
    """Values that occur at least this often."""
    max_size: Positive | None = None
    """At most this many values, the most common."""


class NegativeRule(Rule):
    """Sampled negatives for every event."""

    per_positive: Positive
    """How many for each event."""
    by: Literal["popularity", "uniform"] = "popularity"
    """How items are drawn."""
    seed: Count = 0
    """Seed of the draws."""


class ColumnRule(Rule):
    """How the cells of a column are read."""

    separator: Column
    """Text between the values of a list in one cell, such as "|"."""


class NumericRule(Rule):
    """How a number is fitted."""

    fixed: bool = False
    """Whether to keep the schema's mean, std and default."""


class TimeSplit(Rule):
    """By time: shares of the rows, the most recent last, or the times at which splits begin."""

    by: Literal["time"] = "time"
    valid: Annotated[Number, Field(ge=0, lt=1)] | None = None
    """Share of the rows, e.g. 0.1."""
    test: Annotated[Number, Field(ge=0, lt=1)] | None = None
    """Share of the rows, e.g. 0.1."""
    valid_from: Moment | None = None
    """ISO date, or a number in time_unit."""
    test_from: Moment | None = None
    """ISO date, or a number in time_unit."""

    @model_validator(mode="after")
    def _check(self):
        shares, moments = (self.valid, self.test), (self.valid_from, self.test_from)
        given = [pair for pair in (shares, moments) if pair != (None, None)]
        if len(given) != 1 or None in given[0]:
            raise UsageError("give valid and test, or else valid_from and test_from")
        if given[0] is shares and sum(shares) >= 1:
            raise UsageError(f"valid and test sum to {sum(shares):g}; leave a share to train")
        return self


class LastSplit(Rule):
    """The last ``test`` rows of every user, and the ``valid`` rows before them."""

    by: Literal["last"] = "last"
    valid: Count
    test: Count


class ColumnSplit(Rule):
    """By the text in a column."""

    by: Literal["column"] = "column"
    column: Column
    train: Texts
    valid: Texts = ()
    test: Texts = ()

    @cached_property
    def values(self) -> dict[str, str]:
        """Text -> split."""
        splits: dict[str, str] = {}
        for split in ("train", "valid", "test"):
            for text in getattr(self, split):
                if text in splits:
                    raise UsageError(
                        f"build: split: {text!r} is in {splits[text]} and {split}; keep one"
                    )
                splits[text] = split
        return splits


class Rules(Rule):
    """The whole section; see the module docstring."""

    user: Column
    item: Column | None = None
    time: Column
    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    exact_order: bool = False
    duplicates: Literal["reject", "keep"] = "reject"
    label: Condition | None = None
    rows: Condition | None = None
    columns: dict[str, ColumnRule] = Field(default_factory=dict)
    tables: dict[str, TableRule] = Field(default_factory=dict)
    sequences: dict[str, SequenceRule]
    negatives: NegativeRule | None = None
    split: Annotated[TimeSplit | LastSplit | ColumnSplit, Field(discriminator="by")]
    numeric: dict[str, NumericRule] = Field(default_factory=dict)

    _as_written: dict[str, Any] = PrivateAttr(default_factory=dict)

    @classmethod
    def subject(cls, values: Mapping[str, Any]) -> str:
        """``build: ``."""
        return "build: "

    @property
    def as_written(self) -> dict[str, Any]:
        """The section as written in the file, in values that JSON can represent."""
        return self._as_written

    @property
    def separators(self) -> dict[str, str]:
        """Column -> separator of lists in its cells."""
        return {name: rule.separator for name, rule in self.columns.items()}

    @property
    def fixed(self) -> frozenset[str]:
        """Numbers that keep the schema's mean, std and default."""
        return frozenset(name for name, rule in self.numeric.items() if rule.fixed)


def load_rules(path: str | Path) -> tuple[Schema, Rules]:
    """The schema to be fitted and the rules, from one file.

    Raises:
      UsageError: as for :meth:`Schema.load`, and for absent, invalid or unfitting rules.
    """
    schema, build = load_with_build(path)
    if build is None:
        raise UsageError(
            f"schema {str(path)!r} has no section `build`, which defines how events become rows; "
            "add it, e.g. build: {user: user_id, time: timestamp, ...}"
        )
    return schema, read_rules(build, schema)


def read_rules(build: Any, schema: Schema) -> Rules:
    """:class:`Rules` from the plain values under ``build``; see :func:`load_rules`."""
    values = {name: value for name, value in mapping(build, "build").items() if value is not None}
    rules = Rules(**values)
    if rules.negatives is not None:
        _check_negatives(rules, schema)
    if isinstance(rules.split, ColumnSplit):
        _ = rules.split.values  # refuses a text in two splits
    fixed_numbers(rules.numeric, schema, "build: numeric")
    _check_sequences(rules.sequences, schema)
    found = rules.replace(
        tables=table_rules(rules.tables, schema, "build: tables"),
        sequences=_in_order({s.name: rules.sequences[s.name] for s in schema.sequences}),
    )
    found._as_written.update(_plain(build))
    return found


def table_rules(values: Any, schema: Schema, where: str) -> dict[str, TableRule]:
    """A rule for each table of ``schema`` to be fitted; ``where`` is for messages.

    Raises:
      UsageError: for a table that does not exist or is not to be fitted, or a bad number.
    """
    fitted = [table.name for table in schema.tables if table.vocabulary == ()]
    rules = {}
    for name, rule in mapping(values, where).items():
        place = f"{where}: {name!r}"
        if name not in fitted:
            raise UsageError(
                f"{place} is not a table to be fitted; tables with `vocabulary: []` are "
                f"{', '.join(fitted) or 'none'}"
            )
        try:
            rules[name] = rule if isinstance(rule, TableRule) else TableRule(**mapping(rule, place))
        except UsageError as error:
            raise UsageError(f"{place}: {error}") from None
    return {name: rules.get(name, TableRule()) for name in fitted}


def fixed_numbers(names: Iterable[str], schema: Schema, where: str) -> frozenset[str]:
    """``names``, which must be numeric features of ``schema``; ``where`` is for messages."""
    numeric = {feature.name for feature in schema.all_fields() if feature.type == "numeric"}
    names = list(names)
    for name in names:
        if name not in numeric:
            raise UsageError(
                f"{where}: {name!r} is not a numeric feature or field of the schema; drop it"
            )
    return frozenset(names)


def _check_sequences(rules: Mapping[str, SequenceRule], schema: Schema) -> None:
    sequences = {sequence.name: sequence for sequence in schema.sequences}
    for name in rules:
        if name not in sequences:
            raise UsageError(
                f"build: sequences: {name!r} is not a sequence of the schema"
                + suggestion(name, sequences)
            )
    for name, sequence in sequences.items():
        where = f"build: sequences: {name!r}"
        if name not in rules:
            raise UsageError(f"{where} is missing; define which events are in it")
        rule, fields = rules[name], {field.name: field for field in sequence.fields}
        for field in rule.fields:
            if field not in fields:
                raise UsageError(
                    f"{where}: {field!r} is not a field of it{suggestion(field, fields)}"
                )
        for field in fields.values():
            if field.name not in rule.fields:
                raise UsageError(f"{where}: fields has no {field.name!r}; name its column")
            source = rule.fields[field.name]
            if source in AGES and field.type != "numeric":
                raise UsageError(
                    f"{where}: field {field.name!r} is {source}, a number, and {field.type} in the "
                    "schema; make it numeric"
                )
        others = [other for other in sequences if other != name]
        if rule.before is not None and rule.before not in others:
            raise UsageError(
                f"{where}: before is {rule.before!r}; choose {', '.join(others) or 'none'}"
            )


def _in_order(rules: Mapping[str, SequenceRule]) -> dict[str, SequenceRule]:
    """Orders each sequence after the one it is before, whose ``where`` it inherits."""
    ordered: dict[str, SequenceRule] = {}
    while len(ordered) < len(rules):
        ready = [n for n, r in rules.items() if n not in ordered and r.before in (None, *ordered)]
        if not ready:
            stuck = next(name for name in rules if name not in ordered)
            raise UsageError(
                f"build: sequences: {stuck!r} is before itself, through "
                f"{rules[stuck].before!r}; remove before from one of them"
            )
        for name in ready:
            rule = rules[name]
            if rule.before is not None and rule.where is None:
                rule = rule.replace(where=ordered[rule.before].where)
            ordered[name] = rule
    return ordered


def _check_negatives(rules: Rules, schema: Schema) -> None:
    if rules.item is None:
        raise UsageError("build: negatives needs build: item, the column to sample from; add it")
    if rules.label is not None:
        raise UsageError(
            "build has both negatives and label; with negatives all events are positive; drop one"
        )
    for feature in schema.candidate_features:
        if feature.side == "cross":
            raise UsageError(
                f"feature {feature.name!r} is a cross feature, which is unknown for sampled "
                "items; drop it, or build: negatives"
            )
