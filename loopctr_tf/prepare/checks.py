"""What is said about a log before rows are made of it: errors, and warnings with counts and examples."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from loopctr_tf.errors import UsageError
from loopctr_tf.features.prepared import SPLITS
from loopctr_tf.features.schema import Schema
from loopctr_tf.prepare import statements
from loopctr_tf.prepare.engine import Engine
from loopctr_tf.prepare.plan import FILES, ITEM, LABEL, SPLIT, TIME, USER, Plan
from loopctr_tf.prepare.rule_parts import ColumnSplit, Condition, TimeSplit
from loopctr_tf.prepare.rules import AnyRules, Rules
from loopctr_tf.prepare.statements import ROW, distinct_conditions, ident

NO_MATCH = 0.99
"""Share of events without a row in the item or user table from which on the join is an error."""
COMMON = 0.2
"""Share of all events from which on one id is pointed out."""
EARLY = 631_152_000_000_000
"""1990 in microseconds: events before are pointed out where others are after."""


def check_conditions(engine: Engine, plan: Plan, schema: Schema, rules: AnyRules) -> list[str]:
    """Warnings about conditions that every event meets; UsageError for one that none meets."""
    named: list[tuple[str, str, Condition]] = []
    if rules.label is not None:
        named.append(("build: label", f"{LABEL} = 1", rules.label))
    if rules.rows is not None:
        named.append(("build: rows", ROW, rules.rows))
    wheres = distinct_conditions(rules)
    for name, rule in rules.sequences.items():
        if rule.where is not None:
            met = f"__in_{wheres.index(rule.where)}"
            named.append((f"build: sequences: {name!r}: where", met, rule.where))
    sums = "".join(f", coalesce(sum(CASE WHEN {met} THEN 1 END), 0)" for _, met, _ in named)
    total, *counts = _row(engine, f"SELECT count(*){sums} FROM events")
    warnings = []
    for (where, _, condition), count in zip(named, counts, strict=True):
        if count not in (0, total):
            continue
        asked = (
            f"{condition.column} in [{', '.join(condition.values)}]"
            if condition.values is not None
            else f"{condition.column} >= {condition.at_least:g}"
        )
        holds = _values(engine, plan, schema, condition)
        if count == 0:
            raise UsageError(
                f"{where}: none of {total:,} events has {asked}; {condition.column!r} holds {holds}; "
                "correct the condition"
            )
        warnings.append(f"{where}: all {total:,} events have {asked}; it holds {holds}")
    return warnings


def _values(engine: Engine, plan: Plan, schema: Schema, condition: Condition) -> str:
    """What the column of a condition holds, the commonest values first."""
    kind = "string" if condition.values is not None else "float32"
    column = plan.conditions.get((condition.column, kind), LABEL)
    table = "typed_rows" if "rows" in plan.wanted else "typed_events"
    if column == LABEL:
        table = "events"
    found = engine.query(statements.value_shares(column, table)).to_pylist()
    shown = [f"{row['value']!r} ({row['n']:,})" for row in found[:10]]
    return ", ".join(shown) + (", ..." if len(found) > 10 else "")


def check_joins(engine: Engine, tables: Iterable[str], rules: Rules) -> tuple[list[str], dict]:
    """(warnings, facts) about events without a row in a joined table.

    Raises:
      UsageError: if nearly all events have none.
    """
    warnings, facts = [], {}
    for table, key, column in (("items", ITEM, rules.item), ("users", USER, rules.user)):
        if table not in tables:
            continue
        keys, events, keys_without, without = _row(engine, statements.unmatched(table, key))
        facts[f"{table}_without_row"] = keys_without
        facts[f"{table}_events_without_row"] = without
        facts[f"{table}_table_rows"] = _row(engine, f"SELECT count(*) FROM kept_{table}")[0]
        if not without:
            continue
        sides = [
            [row[key] for row in engine.query(found).to_pylist()]
            for found in (
                statements.unmatched_examples(table, key, "events"),
                statements.unmatched_examples(table, key, "table"),
            )
        ]
        line = (
            f"{without:,} of {events:,} events ({without / events:.1%}) have a value of {column} "
            f"without a row in {FILES[table]}, {keys_without:,} of {keys:,} values: "
            f"{_examples(sides[0])} in the events"
        )
        line += f", {_examples(sides[1])} only in the table" if sides[1] else ""
        if without >= NO_MATCH * events:
            raise UsageError(f"{line}; write the ids alike, or leave {FILES[table]} out")
        warnings.append(line)
    return warnings, facts


def _examples(values: list[str]) -> str:
    return ", ".join(repr(value) for value in values) if values else "none"


def check_events(engine: Engine, rules: Rules) -> list[str]:
    """Warnings about times long ago among others, and about ids that many events have."""
    warnings = []
    total, early, latest = _row(
        engine,
        f"SELECT count(*), count(CASE WHEN {TIME} < {EARLY} THEN 1 END), max({TIME}) FROM events",
    )
    if 0 < early < total and latest >= EARLY:
        first = _row(engine, f"SELECT min({TIME}) FROM events")[0]
        warnings.append(
            f"{early:,} of {total:,} events are before 1990 (the first {iso(first)}), the others up to "
            f"{iso(latest)}; is time_unit {rules.time_unit} right for all of them?"
        )
    keys = [(USER, rules.user)] + ([(ITEM, rules.item)] if rules.item is not None else [])
    for key, column in keys:
        found = engine.query(statements.value_shares(key, "events", 1)).to_pylist()[0]
        if total >= 100 and found["n"] > COMMON * total:
            warnings.append(
                f"{column} is {found['value']!r} in {found['n'] / total:.0%} of the events; is that one "
                f"{'user' if key == USER else 'item'}, or a word for a missing one?"
            )
    return warnings


def check_lists(engine: Engine, plan: Plan, schema: Schema) -> None:
    """UsageError for a list longer than ``max_values`` of its feature, where that does not cut."""
    for feature in schema.all_fields():
        source = (plan.features | plan.fields)[feature.name]
        if not source.many or source.table in ("label", "time") or feature.truncate != "error":
            continue
        size, table = f"array_length({ident(source.typed)})", f"typed_{source.table}"
        longest = _row(engine, f"SELECT coalesce(max({size}), 0) FROM {table}")[0]
        if longest > feature.max_values:
            found = engine.query(
                f"SELECT {statements.FILE} AS file, {statements.PLACE} AS place FROM {table} "
                f"WHERE {size} = {longest} ORDER BY {statements.PLACE} LIMIT 1"
            ).to_pylist()[0]
            row = row_numbers(engine, table, [(found["file"], found["place"])])[0]
            raise UsageError(
                f"column {source.column!r} of {FILES[source.table]} has up to {longest:,} values in a "
                f"cell ({found['file']!r}, row {row:,}); max_values of feature {feature.name!r} is "
                f"{feature.max_values}; raise it, or write truncate: first, which keeps the first ones"
            )


def check_weights(engine: Engine, plan: Plan, schema: Schema) -> None:
    """UsageError for a negative weight."""
    if schema.weight is None:
        return
    column = ident(plan.features[schema.weight].name)
    least = _row(engine, f"SELECT min({column}) FROM events")[0]
    if least < 0:
        raise UsageError(
            f"weight {schema.weight!r} is {least} in an event; weights must be numbers from 0 on"
        )


def row_numbers(engine: Engine, table: str, places: list[tuple[str, int]]) -> list[int]:
    """Numbers of rows in their files, from 1, of (file, place)."""
    if not places:
        return []
    names = engine.query(f"SELECT * FROM {table} LIMIT 0").column_names
    if statements.IMPRESSION in names:
        asked = ", ".join(str(place) for _, place in places)
        found = engine.query(
            f"SELECT {statements.PLACE} AS place, {statements.IMPRESSION} AS own FROM {table} "
            f"WHERE {statements.PLACE} IN ({asked})"
        ).to_pylist()
        own = {row["place"]: row["own"] for row in found}
        places = [(file, own[place]) for file, place in places]
        table = "typed_impressions"
    found = engine.query(
        f"SELECT {statements.FILE} AS file, min({statements.PLACE}) AS first FROM {table} GROUP BY 1"
    ).to_pylist()
    first = {row["file"]: row["first"] for row in found}
    return [place - first[file] + 1 for file, place in places]


def split_begins(engine: Engine, rule: TimeSplit, rows: int, unit: str) -> list[int]:
    """First microseconds of valid and test.

    Raises:
      UsageError: for an invalid date, or test before valid.
    """
    if rule.valid is None:
        begins = [_microseconds(engine, getattr(rule, n), unit, n) for n in MOMENTS]
        if begins[0] >= begins[1]:
            raise UsageError(
                f"build: split: valid_from is {rule.valid_from} and test_from {rule.test_from}; test "
                "comes after valid"
            )
        return begins
    begins = []
    for share in (rule.valid + rule.test, rule.test):
        # Rounded, because 0.1 + 0.2 > 0.3.
        first = rows - int(round(share * rows, 6))
        if first < rows:
            begins.append(_row(engine, statements.nth_time(first))[0])
        else:  # With a share of 0 the split begins after the last row.
            begins.append(_row(engine, f"SELECT max({TIME}) FROM events")[0] + 1)
    return begins


MOMENTS = ("valid_from", "test_from")


def _microseconds(engine: Engine, moment: str | float, unit: str, name: str) -> int:
    from loopctr_tf.prepare.typed import WantedColumn, typed

    text = moment if isinstance(moment, str) else repr(moment)
    cell = typed(WantedColumn("moment", "time", unit=unit), "VARCHAR")
    query = f"(SELECT {statements.text(text)} AS moment)"
    found = _row(engine, f"SELECT {cell.value}, {cell.problem} FROM {query}")
    if found[1] is not None or found[0] is None:
        raise UsageError(
            f"build: split: {name} is {moment!r}; give a date such as 2024-01-31, or a number in {unit}"
        )
    return found[0]


def check_splits(engine: Engine, rules: AnyRules, rows: int) -> Mapping[str, int]:
    """Rows by split.

    Raises:
      UsageError: for a text in the split column that the rules do not name, or a requested split without
        rows.
    """
    found = engine.query(
        f"SELECT {SPLIT} AS split, count(*) AS n FROM parts GROUP BY 1"
    ).to_pylist()
    counts = {row["split"]: row["n"] for row in found}
    rule = rules.split
    if isinstance(rule, ColumnSplit):
        asked = [split in rule.values.values() for split in SPLITS]
    elif isinstance(rule, TimeSplit) and rule.valid is None:
        asked = [True, True, True]
    else:
        asked = [True, rule.valid > 0, rule.test > 0]
    for index, wanted in enumerate(asked):
        if wanted and not counts.get(index):
            kind = "events" if isinstance(rules, Rules) else "rows"
            others = ", ".join(f"{s} {counts[i]:,}" for i, s in enumerate(SPLITS) if counts.get(i))
            raise UsageError(
                f"build: split leaves {SPLITS[index]} without rows (of {rows:,} rows: {others}); change "
                f"it, or give more {kind}"
            )
    return {split: counts.get(index, 0) for index, split in enumerate(SPLITS)}


def check_split_texts(engine: Engine, rule: ColumnSplit) -> None:
    """UsageError for a text in the split column of a row that the rules do not name."""
    found = engine.query(
        f"SELECT __split_text AS value, count(*) AS n FROM events WHERE {ROW} GROUP BY 1 ORDER BY n DESC"
    ).to_pylist()
    for row in found:
        if row["value"] not in rule.values:
            raise UsageError(
                f"build: split: column {rule.column!r} holds {row['value']!r} in {row['n']:,} rows, and "
                f"the rules name {', '.join(rule.values)}; add it to train, valid or test, or leave "
                "such rows out with build: rows"
            )


def check_labels(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Warnings about splits without positives or without negatives."""
    warnings = []
    for split, facts in rows.items():
        for count, kind in (
            (facts["positives"], "positive"),
            (facts["n"] - facts["positives"], "negative"),
        ):
            if facts["n"] and not count:
                warnings.append(
                    f"{split} has no {kind} row among {facts['n']:,}: AUC is undefined there; change "
                    "build: split or build: label"
                )
    return warnings


def iso(microseconds: int) -> str:
    """ISO date; the number itself if it is out of the calendar's range."""
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)).isoformat()
    except OverflowError:
        return str(microseconds)


def _row(engine: Engine, query: str) -> list[Any]:
    """The values of a query's only row."""
    return [column[0].as_py() for column in engine.query(query).columns]
