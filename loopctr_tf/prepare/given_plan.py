"""Which columns are read of rows whose histories are there already."""

from collections.abc import Sequence
from typing import Any

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Feature, Schema
from loopctr_tf.prepare.plan import FILES, LABEL, SPLIT, TIME, Plan, Source
from loopctr_tf.prepare.rule_parts import ColumnSplit
from loopctr_tf.prepare.rules import GivenRules
from loopctr_tf.prepare.typed import WantedColumn


def field_column(name: str) -> str:
    """Typed column of a field."""
    return f"field:{name}"


def given_plan(schema: Schema, rules: GivenRules, have: Sequence[str]) -> Plan:
    """The sources of all columns, in rows with the columns ``have``.

    Raises:
      UsageError: for a column that is absent, or the separator of one that holds no lists.
    """
    planner = _Planner(schema, rules, have)
    features = {feature.name: planner.feature(feature) for feature in schema.features}
    for name, what, kind in (
        (schema.group, "group", "string"),
        (schema.weight, "weight", "float32"),
    ):
        if name is not None and name not in features:
            features[name] = Source("rows", name, kind)
            planner.want(what, features[name].typed, kind, name, required=True)
    fields = {
        field.name: planner.field(field)
        for sequence in schema.sequences
        for field in sequence.fields
    }
    return planner.plan(features, fields)


class _Planner:
    def __init__(self, schema: Schema, rules: GivenRules, have: Sequence[str]):
        self._schema, self._rules, self._have = schema, rules, have
        self._wanted: dict[str, WantedColumn] = {}

    def want(self, needed_by: str, name: str, kind: str, column: str, **how: Any) -> None:
        """Reads a column of the files under a name, once."""
        if column not in self._have:
            raise UsageError(
                f"{needed_by}: {FILES['rows']} has no column {column!r}; its columns are "
                f"{', '.join(self._have)}"
            )
        known = self._wanted.get(name)
        required = how.pop("required", False) or (known is not None and known.required)
        self._wanted[name] = WantedColumn(name, kind, required=required, source=column, **how)

    def feature(self, feature: Feature) -> Source:
        """The source of a global feature."""
        many, column = feature.type == "multi_categorical", feature.column or feature.name
        source = Source("rows", column, self._schema.inputs[feature.name].dtype, many)
        self.want(
            f"feature {feature.name!r}",
            source.typed,
            source.type,
            column,
            separator=self._rules.separators.get(column) if many else None,
            many=many,
            required=feature.name == self._schema.group,
        )
        return source

    def field(self, field: Feature) -> Source:
        """The source of a sequence's field: a list, in which missing values stay."""
        nested, column = field.type == "multi_categorical", field.column or field.name
        source = Source("rows", column, self._schema.inputs[field.name].dtype)
        self.want(
            f"field {field.name!r}",
            field_column(field.name),
            source.type,
            column,
            separator=None if nested else self._rules.separators.get(column),
            many=True,
            nested=nested,
            gaps=not nested,
        )
        return source

    def plan(self, features: dict[str, Source], fields: dict[str, Source]) -> Plan:
        """The plan, with label, conditions and split."""
        rules, label, conditions = self._rules, self._schema.label, {}
        asked = [("build: label", rules.label, True)]
        if rules.rows is not None and rules.rows.column != label:
            asked.append(("build: rows", rules.rows, False))
        for needed_by, condition, required in asked:
            if condition is not None:
                kind = "string" if condition.values is not None else "float32"
                name = conditions[condition.column, kind] = f"condition.{condition.column}.{kind}"
                self.want(needed_by, name, kind, condition.column, required=required)
        if rules.label is None:
            self.want("label", LABEL, "binary", label, required=True)
        what, column = "build: split", rules.split.column
        if isinstance(rules.split, ColumnSplit):
            self.want(what, SPLIT, "string", column, required=True)
        else:
            self.want(what, TIME, "time", column, required=True, unit=rules.time_unit)
        wanted = list(self._wanted.values())
        lists = [column.raw for column in wanted if column.many and not column.nested]
        for name in rules.separators:
            if name not in lists:
                raise UsageError(
                    f"build: columns: {name!r} is not the column of a multi-valued feature or of a "
                    "field with one value an event; drop it"
                )
        return Plan(features, fields, {"rows": wanted}, conditions)
