"""The `build` section of schema.yaml: how events become rows, histories, splits and vocabularies.

All of its keys::

    build:
      user: user_id            # columns of the events
      item: item_id            # needed for negatives, for an item table and for impressions
      time: timestamp          # numbers, or ISO dates
      time_unit: s             # s, ms, us or ns, of numbers
      time_columns: {event_hour: hour, event_weekday: weekday}   # columns made of the time: hour 0 to
                               # 23, weekday 0 (Monday) to 6; for features and fields
      utc_offset: 0            # hours that local time is ahead of UTC, for time_columns
      exact_order: false       # true: events of one time happened in the order of the files
      duplicates: reject       # events equal in all columns read; or keep
      impressions: {shown: inview, clicked: clicks}   # columns of lists: every item shown becomes an
                               # event, with the columns named by item and by the schema's label. Or
                               # {shown: items, click_suffix: "-1", other_suffix: "-0"} of "N1-1 N2-0"
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
``days_before``, the time between the event and the row. Both may be one of ``time_columns``.
``before: clicks`` selects the events before those in ``clicks``, by the same condition unless it has its
own ``where``.

Of rows whose histories are there already (``--rows``), as lists in columns with the names of the fields,
the oldest event first::

    build:
      histories: given
      label, rows, columns, tables, numeric                  # as above
      split: {by: time, column: timestamp, valid: 0.1, test: 0.1}   # or valid_from and test_from, in
      time_unit: s                                           # time_unit, or by: column as above

The fields of a sequence have lists of the same length in a row, in which missing values stay. Fields
with several values an event are lists of lists, which only Parquet files and JSON lines have.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema, load_with_build
from loopctr_tf.prepare.rule_parts import (
    AGES,
    Column,
    ColumnRule,
    ColumnSplit,
    Condition,
    GivenTimeSplit,
    ImpressionRule,
    LastSplit,
    NegativeRule,
    NumericRule,
    Rule,
    SequenceRule,
    TableRule,
    TimeSplit,
    plain,
)
from loopctr_tf.settings import Number, mapping, suggestion


class Section(Rule):
    """What the section says of events and of rows alike."""

    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    label: Condition | None = None
    rows: Condition | None = None
    columns: dict[str, ColumnRule] = Field(default_factory=dict)
    tables: dict[str, TableRule] = Field(default_factory=dict)
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


class Rules(Section):
    """The whole section for events; see the module docstring."""

    user: Column
    item: Column | None = None
    time: Column
    time_columns: dict[str, Literal["hour", "weekday"]] = Field(default_factory=dict)
    utc_offset: Annotated[Number, Field(ge=-14, le=14)] = 0.0
    exact_order: bool = False
    duplicates: Literal["reject", "keep"] = "reject"
    impressions: ImpressionRule | None = None
    sequences: dict[str, SequenceRule]
    negatives: NegativeRule | None = None
    split: Annotated[TimeSplit | LastSplit | ColumnSplit, Field(discriminator="by")]


class GivenRules(Section):
    """The whole section for rows whose histories are given."""

    histories: Literal["given"]
    split: Annotated[GivenTimeSplit | ColumnSplit, Field(discriminator="by")]

    @property
    def sequences(self) -> dict[str, SequenceRule]:
        """None: no events are selected."""
        return {}


AnyRules = Rules | GivenRules


def load_rules(path: str | Path) -> tuple[Schema, Rules]:
    """The schema to be fitted and the rules, from one file.

    Raises:
      UsageError: as for :meth:`Schema.load`, and for absent, invalid or unfitting rules.
    """
    schema, build = _with_section(path, "{user: user_id, time: timestamp, ...}")
    return schema, read_rules(build, schema)


def load_given_rules(path: str | Path) -> tuple[Schema, GivenRules]:
    """:func:`load_rules` for rows whose histories are given."""
    schema, build = _with_section(path, "{histories: given, split: ...}")
    values = {name: value for name, value in mapping(build, "build").items() if value is not None}
    if "histories" not in values:
        raise UsageError(
            "--rows has rows with their histories, and build has no key `histories`; write `histories: "
            "given` (see --help-build), or name the files of an event log with --events"
        )
    rules = GivenRules(**values)
    if isinstance(rules.split, ColumnSplit):
        _ = rules.split.values  # refuses a text in two splits
    fixed_numbers(rules.numeric, schema, "build: numeric")
    found = rules.replace(tables=table_rules(rules.tables, schema, "build: tables"))
    found._as_written.update(plain(build))
    return schema, found


def _with_section(path: str | Path, example: str) -> tuple[Schema, Any]:
    schema, build = load_with_build(path)
    if build is None:
        raise UsageError(
            f"schema {str(path)!r} has no section `build`, which defines how events become rows; "
            f"add it, e.g. build: {example}"
        )
    return schema, build


def read_rules(build: Any, schema: Schema) -> Rules:
    """:class:`Rules` from the plain values under ``build``; see :func:`load_rules`."""
    values = {name: value for name, value in mapping(build, "build").items() if value is not None}
    if "histories" in values:
        raise UsageError(
            f"build: histories is {values['histories']!r}, of rows that have their histories; name "
            "their files with --rows instead of --events, or drop histories"
        )
    for key, what in (
        ("user", "the column of the user"),
        ("time", "the column of the event's time"),
    ):
        if key not in values:
            raise UsageError(
                f"build: key {key!r} is missing; add it, {what}: histories are made of the earlier "
                "events of a user, and a log that says neither who nor when has none, which "
                "this model needs"
            )
    rules = Rules(**values)
    if rules.negatives is not None:
        _check_negatives(rules, schema)
    if rules.impressions is not None:
        _check_impressions(rules)
    if isinstance(rules.split, ColumnSplit):
        _ = rules.split.values  # refuses a text in two splits
    fixed_numbers(rules.numeric, schema, "build: numeric")
    _check_sequences(rules.sequences, schema)
    found = rules.replace(
        tables=table_rules(rules.tables, schema, "build: tables"),
        sequences=_in_order({s.name: rules.sequences[s.name] for s in schema.sequences}),
    )
    found._as_written.update(plain(build))
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


def _check_impressions(rules: Rules) -> None:
    if rules.item is None:
        raise UsageError(
            "build: impressions needs build: item, the name for the column of the items shown; add it"
        )
    for name in ("label", "negatives"):
        if getattr(rules, name) is not None:
            raise UsageError(
                f"build has both impressions and {name}; with impressions the label says which items "
                "were clicked; drop one"
            )
    if rules.exact_order:
        raise UsageError(
            "build has impressions and exact_order: true, which puts items into histories of others "
            "shown with them; drop exact_order"
        )


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
