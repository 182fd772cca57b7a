"""Finds the source column of every feature and field, and lists the columns to read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Feature, Schema
from loopctr_tf.prepare.rules import AGES, ColumnSplit, Condition, Rules
from loopctr_tf.prepare.wanted import WantedColumn

FILES = {"events": "--events", "items": "--items", "users": "--users"}
"""Tables, with the options that name their files."""
_STRENGTH = ("any", "float32", "int64", "string")


@dataclass(frozen=True)
class Source:
    """Where values come from.

    Attributes:
      table: "events", "items" or "users"; or "label" (the event's label) or "age" (time between the
        event and the row).
      column: name in that table; for an age, its name in ``rules.AGES``.
      type: "string", "int64" or "float32".
    """

    table: str
    column: str
    type: str


@dataclass(frozen=True)
class Plan:
    """The sources of all columns.

    Attributes:
      features: sources of the global features and the group column, by name.
      fields: sources of the sequences' fields, by name.
      wanted: the columns to read of each given table.
    """

    features: Mapping[str, Source]
    fields: Mapping[str, Source]
    wanted: Mapping[str, Sequence[WantedColumn]]


def make_plan(schema: Schema, rules: Rules, have: Mapping[str, Sequence[str]]) -> Plan:
    """Finds the source of every feature and field.

    A feature takes the column of its own name from the events, else from the item table (item features)
    or the user table (user features). With sampled negatives item features come only from the item
    table, so that positives and negatives have the same source. A field takes the column that the rules
    name from the events, else from the item table.

    Args:
      schema: to be fitted.
      rules: of the section `build`.
      have: column names of each given table.

    Raises:
      UsageError: if a column is in no table, or is needed both as a list and as a single value.
    """
    planner = _Planner(schema, rules, have)
    planner.need("events", rules.user, "any", "build: user")
    if rules.item is not None:
        planner.need("events", rules.item, "any", "build: item")
    features = {feature.name: planner.feature(feature) for feature in schema.features}
    if schema.group not in features:
        planner.need("events", schema.group, "any", "group")
        features[schema.group] = Source("events", schema.group, "string")
    fields = {
        field.name: planner.field(field, rules.sequences[sequence.name].fields[field.name])
        for sequence in schema.sequences
        for field in sequence.fields
    }
    planner.conditions()
    return Plan(features, fields, planner.wanted())


class _Planner:
    def __init__(self, schema: Schema, rules: Rules, have: Mapping[str, Sequence[str]]):
        self._schema, self._rules, self._have = schema, rules, have
        # (table, column) -> (type, whether lists, what needs it first)
        self._needs: dict[tuple[str, str], tuple[str, bool, str]] = {}
        if "items" in have and rules.item is None:
            raise UsageError("--items needs build: item, the column it is joined by; add it")

    def need(self, table: str, column: str, kind: str, needed_by: str, many: bool = False) -> None:
        """Adds a column to read; of several types the most general one is read."""
        if column not in self._have[table]:
            raise UsageError(
                f"{needed_by}: {FILES[table]} has no column {column!r}; its columns are "
                f"{', '.join(self._have[table])}"
            )
        if table == "events" and column == self._rules.time:
            raise UsageError(
                f"{needed_by}: column {column!r} is the time of the events; name another "
                f"(a field may be {' or '.join(AGES)})"
            )
        if (table, column) in self._needs:
            other, was_many, first = self._needs[table, column]
            if many != was_many:
                lists, values = (needed_by, first) if many else (first, needed_by)
                raise UsageError(
                    f"column {column!r} holds lists for {lists} and one value for {values}; use one of "
                    "them"
                )
            # Needed as int64 and as float32: read as text, which represents missing values for both.
            mixed = {kind, other} == {"int64", "float32"}
            kind = "string" if mixed else max(kind, other, key=_STRENGTH.index)
            needed_by = first
        self._needs[table, column] = (kind, many, needed_by)

    def feature(self, feature: Feature) -> Source:
        """The source of a global feature."""
        rules, name = self._rules, feature.name
        needed_by, kind = f"feature {name!r}", _type_of(feature, self._schema)
        if rules.negatives is not None and name == rules.item and feature.type != "categorical":
            raise UsageError(
                f"{needed_by} is the item to sample negatives from; make it categorical"
            )
        tables = ["events"]
        tables += {"item": ["items"], "user": ["users"]}.get(feature.side, [])
        if rules.negatives is not None and feature.side == "item" and name != rules.item:
            # The events do not hold a sampled item's value at the time of the row.
            tables = ["items"]
        return self._find(tables, name, kind, needed_by, feature.type == "multi_categorical")

    def field(self, field: Feature, column: str) -> Source:
        """The source of a sequence's field."""
        needed_by, kind = f"field {field.name!r}", _type_of(field, self._schema)
        if column in AGES:
            return Source("age", column, kind)
        if column == self._schema.label:
            return Source("label", column, kind)
        return self._find(
            ["events", "items"], column, kind, needed_by, field.type == "multi_categorical"
        )

    def _find(
        self, tables: list[str], column: str, kind: str, needed_by: str, many: bool
    ) -> Source:
        for table in tables:
            if column in self._have.get(table, ()):
                self.need(table, column, kind, needed_by, many)
                return Source(table, column, kind)
        looked = " or ".join(FILES[table] for table in tables if table in self._have)
        absent = " or ".join(FILES[table] for table in tables if table not in self._have)
        detail = f"no column {column!r} in {looked}" if looked else f"its column is {column!r}"
        why = ", because negatives are sampled" if tables == ["items"] else ""
        remedy = f"give {absent} with it" if absent else "add it, or drop the feature"
        raise UsageError(f"{needed_by}: {detail}{why}; {remedy}")

    def conditions(self) -> None:
        """Adds the columns of conditions, the label and the split."""
        rules = self._rules
        for needed_by, condition in (
            ("build: label", rules.label),
            ("build: rows", rules.rows),
            *(
                (f"build: sequences: {name!r}", rule.where)
                for name, rule in rules.sequences.items()
            ),
        ):
            if isinstance(condition, Condition) and (
                condition.column != self._schema.label or condition is rules.label
            ):
                kind = "float32" if condition.values is None else "string"
                self.need("events", condition.column, kind, needed_by)
        if isinstance(rules.split, ColumnSplit):
            self.need("events", rules.split.column, "string", "build: split")
        if rules.label is None and rules.negatives is None:
            label = self._schema.label
            if label not in self._have["events"]:
                raise UsageError(
                    f"label: {FILES['events']} has no column {label!r}; add it, or define it "
                    "with build: label (or build: negatives)"
                )

    def wanted(self) -> dict[str, list[WantedColumn]]:
        """The columns to read."""
        rules, wanted = self._rules, {}
        required = {rules.user, rules.item}
        required |= {c.column for c in (rules.label,) if c is not None}
        required |= {rules.split.column} if isinstance(rules.split, ColumnSplit) else set()
        for table, keys in (("events", ()), ("items", (rules.item,)), ("users", (rules.user,))):
            if table not in self._have:
                continue
            wanted[table] = []
            for key in keys:
                if key not in self._have[table]:
                    raise UsageError(
                        f"{FILES[table]} has no column {key!r}, which it is joined by; its columns are "
                        f"{', '.join(self._have[table])}"
                    )
                # Of the same type as in the events, so that equal ids match.
                wanted[table].append(
                    WantedColumn(key, self._read_type("events", key), required=True)
                )
            for name in [c for t, c in self._needs if t == table and c not in keys]:
                wanted[table].append(
                    WantedColumn(
                        name,
                        self._read_type(table, name),
                        separator=rules.separators.get(name) if self._many(table, name) else None,
                        many=self._many(table, name),
                        required=table == "events" and name in required,
                    )
                )
        wanted["events"].append(
            WantedColumn(rules.time, "time", required=True, unit=rules.time_unit)
        )
        if rules.label is None and rules.negatives is None:
            wanted["events"].append(WantedColumn(self._schema.label, "binary", required=True))
        for name in rules.separators:
            if not any(
                column.name == name and column.many for w in wanted.values() for column in w
            ):
                raise UsageError(
                    f"build: columns: {name!r} is not the column of a multi-valued feature or field; "
                    "drop it"
                )
        return wanted

    def _read_type(self, table: str, column: str) -> str:
        kind = self._needs[table, column][0]
        keys = (self._rules.user, self._rules.item)
        # Ids are never read as floats.
        is_key = table == "events" and column in keys
        return "string" if kind == "any" or (is_key and kind == "float32") else kind

    def _many(self, table: str, column: str) -> bool:
        return self._needs[table, column][1]


def _type_of(feature: Feature, schema: Schema) -> str:
    return schema.inputs[feature.name].dtype
