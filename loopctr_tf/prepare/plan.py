"""Where the values of every feature and field come from, and which columns are read for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Feature, Schema
from loopctr_tf.prepare.rule_parts import AGES, ColumnSplit, Condition
from loopctr_tf.prepare.rules import Rules
from loopctr_tf.prepare.typed import WantedColumn

FILES = {"events": "--events", "items": "--items", "users": "--users", "rows": "--rows"}
"""Tables, with the options that name their files."""


@dataclass(frozen=True)
class Source:
    """Where values come from.

    Attributes:
      table: "events", "items" or "users"; "label" (the event's label), "time" (made of the event's
        time) or "age" (time between the event and the row).
      column: name in that table; for an age, its name in ``rule_parts.AGES``; "hour" or
        "weekday" of a time.
      type: "string", "int64" or "float32".
      many: whether a value is a list.
      most, keep: the "first" or "last" so many values of a list stay; 0 keeps all.
    """

    table: str
    column: str
    type: str
    many: bool = False
    most: int = 0
    keep: str = "first"

    @property
    def typed(self) -> str:
        """Name of the typed column of the table."""
        # Spark takes a dot in a name for the way into a structure.
        column = self.column.replace("%", "%25").replace(".", "%2E")
        return f"{self.table}:{column}:{self.type}{':list' if self.many else ''}"

    @property
    def name(self) -> str:
        """Name of the column of the events, whose lists are cut."""
        return f"{self.typed}:{self.keep}_{self.most}" if self.most else self.typed


@dataclass(frozen=True)
class Plan:
    """The sources of all columns.

    Attributes:
      features: sources of the global features, the group column and the weight, by name.
      fields: sources of the sequences' fields, by name.
      wanted: by given table, the columns to read; ``name`` is the typed column's, ``source`` the file's.
      conditions: the name of the typed column that each column of a condition is read as.
      lists: the columns of impressions.
      made: of the columns of the events that are made of impressions, DuckDB's types.
    """

    features: Mapping[str, Source]
    fields: Mapping[str, Source]
    wanted: Mapping[str, Sequence[WantedColumn]]
    conditions: Mapping[tuple[str, str], str] = field(default_factory=dict)
    lists: Sequence[WantedColumn] = ()
    made: Mapping[str, str] = field(default_factory=dict)

    def read(self, table: str) -> list[WantedColumn]:
        """The columns that are read from the files of a table."""
        if table != "events":
            return list(self.wanted[table])
        return [column for column in self.wanted[table] if column.raw not in self.made] + [
            *self.lists
        ]

    @property
    def stored(self) -> list[Source]:
        """The distinct sources that are columns of the events, in order of their names."""
        sources = {*self.features.values(), *self.fields.values()}
        return sorted((s for s in sources if s.table != "age"), key=lambda source: source.name)


USER, ITEM, TIME, LABEL, SPLIT = "__user", "__item", "__time", "__label", "__split"
"""Typed columns of the events with a role of their own."""
SHOWN, CLICKED = "__shown", "__clicked"
"""Typed columns of impressions."""


def make_plan(schema: Schema, rules: Rules, have: Mapping[str, Sequence[str]]) -> Plan:
    """Finds the source of every feature and field.

    A feature takes the column of its own name (or ``column``) from the events, else from the item table
    (item features) or the user table (user features). With sampled negatives item features come only
    from the item table, so that positives and negatives have the same source. A field takes the column
    that the rules name from the events, else from the item table.

    Args:
      schema: to be fitted.
      rules: of the section `build`.
      have: column names of each given table.

    Raises:
      UsageError: if a column is in no table.
    """
    if rules.impressions is not None:
        have = {**have, "events": _of_impressions(schema, rules, have["events"])}
    planner = _Planner(schema, rules, have)
    features = {feature.name: planner.feature(feature) for feature in schema.features}
    if schema.group not in features:
        planner.require("events", schema.group, "group")
        features[schema.group] = Source("events", schema.group, "string")
    if schema.weight is not None:
        planner.require("events", schema.weight, "weight")
        features[schema.weight] = Source("events", schema.weight, "float32")
    fields = {
        field.name: planner.field(field, rules.sequences[sequence.name].fields[field.name])
        for sequence in schema.sequences
        for field in sequence.fields
    }
    return planner.plan(features, fields)


def _of_impressions(schema: Schema, rules: Rules, have: Sequence[str]) -> list[str]:
    """The columns of the events that are made of impressions with the columns ``have``."""
    lists = rules.impressions.columns
    for name in lists:
        if name not in have:
            raise UsageError(
                f"build: impressions: {FILES['events']} has no column {name!r}; its columns are "
                f"{', '.join(have)}"
            )
    own = [name for name in have if name not in lists]
    for name, rule in ((rules.item, "build: item"), (schema.label, "label")):
        if name in own:
            raise UsageError(
                f"{rule}: {FILES['events']} has a column {name!r}, and the one made of build: "
                "impressions is called so; give that another name"
            )
    return [*own, rules.item, schema.label]


class _Planner:
    def __init__(self, schema: Schema, rules: Rules, have: Mapping[str, Sequence[str]]):
        self._schema, self._rules, self._have = schema, rules, have
        self._times: set[str] = set()
        if "items" in have and rules.item is None:
            raise UsageError("--items needs build: item, the column it is joined by; add it")
        self.require("events", rules.user, "build: user")
        if rules.item is not None:
            self.require("events", rules.item, "build: item")
        self.require("events", rules.time, "build: time")
        for name in rules.time_columns:
            if name in have["events"] or name in (rules.item, schema.label):
                raise UsageError(
                    f"build: time_columns: {FILES['events']} has a column {name!r} already; give the "
                    "one made of the time another name"
                )

    def require(self, table: str, column: str, needed_by: str) -> None:
        """UsageError where a given table lacks a column."""
        if column not in self._have[table]:
            raise UsageError(
                f"{needed_by}: {FILES[table]} has no column {column!r}; its columns are "
                f"{', '.join(self._have[table])}"
            )

    def feature(self, feature: Feature) -> Source:
        """The source of a global feature."""
        rules, name = self._rules, feature.column or feature.name
        needed_by, many = f"feature {feature.name!r}", feature.type == "multi_categorical"
        is_item = name == rules.item
        if rules.negatives is not None and is_item and feature.type != "categorical":
            raise UsageError(
                f"{needed_by} is the item to sample negatives from; make it categorical"
            )
        tables = ["events"]
        tables += {"item": ["items"], "user": ["users"]}.get(feature.side, [])
        if rules.negatives is not None and feature.side == "item" and not is_item:
            # The events do not hold a sampled item's value at the time of the row.
            tables = ["items"]
        return _cut(feature, self._find(tables, name, self._type(feature), needed_by, many))

    def field(self, field: Feature, column: str) -> Source:
        """The source of a sequence's field."""
        needed_by, many = f"field {field.name!r}", field.type == "multi_categorical"
        if column in AGES:
            return Source("age", column, "float32")
        if column == self._schema.label:
            return Source("label", column, self._type(field), many)
        found = self._find(["events", "items"], column, self._type(field), needed_by, many)
        return _cut(field, found)

    def _find(
        self, tables: list[str], column: str, kind: str, needed_by: str, many: bool
    ) -> Source:
        if column in self._rules.time_columns and "events" in tables:
            self._times.add(column)
            return Source("time", self._rules.time_columns[column], kind, many)
        for table in tables:
            if column in self._have.get(table, ()):
                if table == "events" and column == self._rules.time:
                    raise UsageError(
                        f"{needed_by}: column {column!r} is the time of the events; name another (a "
                        f"field may be {' or '.join(AGES)})"
                    )
                return Source(table, column, kind, many)
        looked = " or ".join(FILES[table] for table in tables if table in self._have)
        absent = " or ".join(FILES[table] for table in tables if table not in self._have)
        detail = f"no column {column!r} in {looked}" if looked else f"its column is {column!r}"
        why = ", because negatives are sampled" if tables == ["items"] else ""
        remedy = f"give {absent} with it" if absent else "add it, or drop the feature"
        raise UsageError(f"{needed_by}: {detail}{why}; {remedy}")

    def _type(self, feature: Feature) -> str:
        return self._schema.inputs[feature.name].dtype

    def plan(self, features: dict[str, Source], fields: dict[str, Source]) -> Plan:
        """The plan, with the columns to read."""
        rules, wanted, conditions = self._rules, {}, {}
        for table in self._have:
            keys = {"events": [(USER, rules.user), (ITEM, rules.item)]}
            keys |= {"items": [(ITEM, rules.item)], "users": [(USER, rules.user)]}
            wanted[table] = []
            for name, column in keys[table]:
                if column is not None:
                    if column not in self._have[table]:
                        raise UsageError(
                            f"{FILES[table]} has no column {column!r}, which it is joined by; its "
                            f"columns are {', '.join(self._have[table])}"
                        )
                    wanted[table].append(WantedColumn(name, "string", required=True, source=column))
            sources = {*features.values(), *fields.values()}
            by_name = {s.typed: s for s in sources if s.table == table}
            for _, source in sorted(by_name.items()):
                separator = rules.separators.get(source.column) if source.many else None
                wanted[table].append(
                    WantedColumn(
                        source.typed,
                        source.type,
                        separator,
                        required=table == "events" and source.column == self._schema.weight,
                        many=source.many,
                        source=source.column,
                    )
                )
        events = wanted["events"]
        events.append(
            WantedColumn(TIME, "time", required=True, unit=rules.time_unit, source=rules.time)
        )
        for needed_by, condition, required in self._conditions():
            self.require("events", condition.column, needed_by)
            kind = "string" if condition.values is not None else "float32"
            name = f"condition.{condition.column}.{kind}"
            conditions[condition.column, kind] = name
            known = {column.name: column for column in events}
            if name not in known or required > known[name].required:
                events[:] = [column for column in events if column.name != name]
                events.append(WantedColumn(name, kind, required=required, source=condition.column))
        if isinstance(rules.split, ColumnSplit):
            self.require("events", rules.split.column, "build: split")
            events.append(WantedColumn(SPLIT, "string", required=True, source=rules.split.column))
        if rules.label is None and rules.negatives is None:
            label = self._schema.label
            if label not in self._have["events"]:
                raise UsageError(
                    f"label: {FILES['events']} has no column {label!r}; add it, or define it with "
                    "build: label (or build: negatives)"
                )
            events.append(WantedColumn(LABEL, "binary", required=True, source=label))
        shown, made = [], {}
        if rules.impressions is not None:
            shown = [
                WantedColumn(name, "string", rules.separators.get(column), many=True, source=column)
                for name, column in zip((SHOWN, CLICKED), rules.impressions.columns, strict=False)
            ]
            made = {rules.item: "VARCHAR", self._schema.label: "TINYINT"}
        lists = {c.source for cs in (*wanted.values(), shown) for c in cs if c.many}
        for name in rules.separators:
            if name not in lists:
                raise UsageError(
                    f"build: columns: {name!r} is not the column of a multi-valued feature or field; "
                    "drop it"
                )
        for name in rules.time_columns:
            if name not in self._times:
                raise UsageError(
                    f"build: time_columns: {name!r} is not the column of a feature or field; drop it"
                )
        return Plan(features, fields, wanted, conditions, shown, made)

    def _conditions(self) -> list[tuple[str, Condition, bool]]:
        """(what needs it, condition, whether it needs a value) of all but those on the label."""
        rules = self._rules
        found = [("build: rows", rules.rows, False)]
        found += [
            (f"build: sequences: {name!r}", rule.where, False)
            for name, rule in rules.sequences.items()
        ]
        found = [f for f in found if f[1] is not None and f[1].column != self._schema.label]
        return found + ([("build: label", rules.label, True)] if rules.label is not None else [])


def _cut(feature: Feature, source: Source) -> Source:
    """A list's source, with the number of values that stay."""
    if not source.many or feature.truncate == "error":
        return source
    return replace(source, most=feature.max_values, keep=feature.truncate)
