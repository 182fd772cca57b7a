"""Which column of which file every feature and field is made of, and what has to be read for that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Feature, Schema
from loopctr_tf.prepare.rules import AGES, ColumnSplit, Condition, Rules
from loopctr_tf.prepare.wanted import Wanted

FILES = {"events": "--events", "items": "--items", "users": "--users"}
"""The tables that may be given, and the options that name them."""
_STRENGTH = ("any", "float32", "int64", "string")


@dataclass(frozen=True)
class Source:
    """Where values come from.

    Attributes:
      table: "events", "items" or "users"; or "label" (the row's label, of the event) or "age" (how long
        before the row the event was).
      column: name in that table; of an age, its unit as ``rules.AGES`` names it.
      type: "string", "int64" or "float32".
    """

    table: str
    column: str
    type: str


@dataclass(frozen=True)
class Plan:
    """What everything is made of.

    Attributes:
      features: a source for each global feature and the group column, by name.
      fields: a source for each field of a sequence, by name.
      wanted: for each table the columns to read; no entry for a table that is not given.
    """

    features: Mapping[str, Source]
    fields: Mapping[str, Source]
    wanted: Mapping[str, Sequence[Wanted]]


def make_plan(schema: Schema, rules: Rules, have: Mapping[str, Sequence[str]]) -> Plan:
    """Finds a column for everything.

    A feature takes the column of its own name: of the events, else of the item table (item features) or
    the user table (user features). With sampled negatives item features come from the item table, so
    that rows of both labels are made alike. A field takes the column that the rules name, of the events,
    else of the item table.

    Args:
      schema: to be fitted.
      rules: of the section `build`.
      have: for each table that is given the names of its columns.

    Raises:
      UsageError: for a column that no table has, or that is wanted in ways that exclude each other.
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
        # (table, column) -> (type, whether lists, who wants it first)
        self._needs: dict[tuple[str, str], tuple[str, bool, str]] = {}
        if "items" in have and rules.item is None:
            raise UsageError("--items is given and build has no item, the column it is joined by")

    def need(self, table: str, column: str, kind: str, who: str, many: bool = False) -> None:
        """Notes that a column is wanted; the strongest type wins."""
        if column not in self._have[table]:
            raise UsageError(
                f"{who}: {FILES[table]} has no column {column!r}; its columns are "
                f"{', '.join(self._have[table])}"
            )
        if table == "events" and column == self._rules.time:
            raise UsageError(
                f"{who}: column {column!r} is the time of the events and nothing else; name another "
                f"(a field may be {' or '.join(AGES)})"
            )
        if (table, column) in self._needs:
            other, was_many, first = self._needs[table, column]
            if many != was_many:
                raise UsageError(
                    f"column {column!r} holds lists for {who if many else first} and one value for "
                    f"{first if many else who}; use one of them"
                )
            # What is text or a whole number for one and a number for another is read as text, in
            # which a missing value is no number either.
            mixed = {kind, other} == {"int64", "float32"}
            kind = "string" if mixed else max(kind, other, key=_STRENGTH.index)
            who = first
        self._needs[table, column] = (kind, many, who)

    def feature(self, feature: Feature) -> Source:
        """The source of a global feature."""
        rules, name = self._rules, feature.name
        who, kind = f"feature {name!r}", _type_of(feature, self._schema)
        if rules.negatives is not None and name == rules.item and feature.type != "categorical":
            raise UsageError(
                f"{who} is the item that negatives are sampled of; make it categorical"
            )
        tables = ["events"]
        tables += {"item": ["items"], "user": ["users"]}.get(feature.side, [])
        if rules.negatives is not None and feature.side == "item" and name != rules.item:
            # From the events, a sampled item's value would be unknown or of another moment.
            tables = ["items"]
        return self._find(tables, name, kind, who, feature.type == "multi_categorical")

    def field(self, field: Feature, column: str) -> Source:
        """The source of a sequence's field."""
        who, kind = f"field {field.name!r}", _type_of(field, self._schema)
        if column in AGES:
            return Source("age", column, kind)
        if column == self._schema.label:
            return Source("label", column, kind)
        return self._find(["events", "items"], column, kind, who, field.type == "multi_categorical")

    def _find(self, tables: list[str], column: str, kind: str, who: str, many: bool) -> Source:
        for table in tables:
            if column in self._have.get(table, ()):
                self.need(table, column, kind, who, many)
                return Source(table, column, kind)
        looked = " or ".join(FILES[table] for table in tables if table in self._have)
        absent = " or ".join(FILES[table] for table in tables if table not in self._have)
        told = f"no column {column!r} in {looked}" if looked else f"its column is {column!r}"
        why = ", because negatives are sampled" if tables == ["items"] else ""
        remedy = f"give {absent} with it" if absent else "add it, or drop the feature"
        raise UsageError(f"{who}: {told}{why}; {remedy}")

    def conditions(self) -> None:
        """Notes what tells rows, labels, sequences and splits."""
        rules = self._rules
        for who, condition in (
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
                self.need("events", condition.column, kind, who)
        if isinstance(rules.split, ColumnSplit):
            self.need("events", rules.split.column, "string", "build: split")
        if rules.label is None and rules.negatives is None:
            label = self._schema.label
            if label not in self._have["events"]:
                raise UsageError(
                    f"label: {FILES['events']} has no column {label!r}; add it, or say with build: "
                    "label (or build: negatives) what is a 1"
                )

    def wanted(self) -> dict[str, list[Wanted]]:
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
                # As in the events, so that equal ids are equal.
                wanted[table].append(Wanted(key, self._read_type("events", key), required=True))
            for name in [c for t, c in self._needs if t == table and c not in keys]:
                wanted[table].append(
                    Wanted(
                        name,
                        self._read_type(table, name),
                        separator=rules.separators.get(name) if self._many(table, name) else None,
                        many=self._many(table, name),
                        required=table == "events" and name in required,
                    )
                )
        wanted["events"].append(Wanted(rules.time, "time", required=True, unit=rules.time_unit))
        if rules.label is None and rules.negatives is None:
            wanted["events"].append(Wanted(self._schema.label, "binary", required=True))
        for name in rules.separators:
            if not any(
                column.name == name and column.many for w in wanted.values() for column in w
            ):
                raise UsageError(
                    f"build: columns: {name!r} is no column of a multi-valued feature or field; drop it"
                )
        return wanted

    def _read_type(self, table: str, column: str) -> str:
        kind = self._needs[table, column][0]
        keys = (self._rules.user, self._rules.item)
        # An id is never read as a fraction.
        is_key = table == "events" and column in keys
        return "string" if kind == "any" or (is_key and kind == "float32") else kind

    def _many(self, table: str, column: str) -> bool:
        return self._needs[table, column][1]


def _type_of(feature: Feature, schema: Schema) -> str:
    return schema.inputs[feature.name].dtype
