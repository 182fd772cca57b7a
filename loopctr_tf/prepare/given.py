"""Makes a prepared folder of the files of rows whose histories are there already."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from loopctr_tf.errors import UsageError
from loopctr_tf.features.prepared import SHARD_ROWS, SPLITS
from loopctr_tf.features.schema import Schema
from loopctr_tf.files import require_new
from loopctr_tf.prepare import checks, count_statements, statements
from loopctr_tf.prepare.duckdb_engine import DuckDBEngine
from loopctr_tf.prepare.files import DEFAULT_TEXT, MixedFiles, TextOptions
from loopctr_tf.prepare.given_plan import field_column, given_plan
from loopctr_tf.prepare.plan import FILES, LABEL, SPLIT, TIME, Plan
from loopctr_tf.prepare.prepare import REJECTED, Paths, absent_columns, days_of
from loopctr_tf.prepare.reading import read_table
from loopctr_tf.prepare.rejects import BadRow, Problem, Rejects
from loopctr_tf.prepare.rows import prepare_rows
from loopctr_tf.prepare.rule_parts import ColumnSplit, TimeSplit
from loopctr_tf.prepare.rules import GivenRules, load_given_rules
from loopctr_tf.prepare.statements import BAD_REASON, FILE, PLACE, ROW, ident, meets, text
from loopctr_tf.prepare.time_sql import cases
from loopctr_tf.prepare.vectors import Vectors
from loopctr_tf.prepare.workers import worker_count

LENGTHS = Problem(
    "lists of different lengths in a sequence", "give its fields the same number of events"
)
_BATCH = 8192


def prepare_given(
    schema_path: str | Path,
    rows: Paths,
    out: str | Path,
    *,
    vectors: Vectors | None = None,
    text: TextOptions = DEFAULT_TEXT,
    skip_bad: bool = False,
    memory: str = "2GB",
    workers: int | None = None,
    progress: bool = False,
    say: Callable[[str], Any] = lambda line: None,
    shard_rows: int = SHARD_ROWS,
) -> dict[str, Any]:
    """Builds the prepared folder ``out`` from rows, by ``rules.GivenRules``; they stay in their order.

    Args:
      schema_path: schema.yaml with a section `build` with `histories: given`.
      rows: Parquet, CSV or JSON-lines files, or folders of them, in order.
      out, vectors, text, skip_bad, memory, workers, progress, say, shard_rows: as for
        ``prepare.prepare_events``.

    Returns:
      The content of ``stats.json``.

    Raises:
      UsageError: as ``prepare.prepare_events`` and ``rows.prepare_rows`` do.
    """
    workers, out = worker_count(workers), require_new(out)
    schema, rules = load_given_rules(schema_path)
    files = MixedFiles(rows, FILES["rows"], text)
    plan = given_plan(schema, rules, files.columns)
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.rows-") as folder,
        Rejects(Path(folder) / REJECTED if skip_bad else None) as rejects,
        DuckDBEngine(Path(folder) / "work", workers, memory) as engine,
    ):
        given = _GivenRows(engine, files, plan, schema, rules, rejects, say)
        return prepare_rows(
            schema,
            given,
            out,
            tables=rules.tables,
            fixed=rules.fixed,
            facts=given.facts,
            vectors=vectors,
            rejects=rejects,
            workers=workers,
            progress=progress,
            shard_rows=shard_rows,
        )


class _GivenRows:
    """Reads, checks and splits the rows, which are then ``rows.Rows``; ``facts`` are for stats.json."""

    def __init__(
        self,
        engine: DuckDBEngine,
        files: MixedFiles,
        plan: Plan,
        schema: Schema,
        rules: GivenRules,
        rejects: Rejects,
        say: Callable[[str], Any],
    ):
        self._engine, self._names = engine, [schema.label, *plan.features, *plan.fields]
        warnings = [*files.notes, *absent_columns(files, plan.wanted["rows"])]
        table = read_table(engine, "rows", files, plan.wanted["rows"], rejects)
        self._uneven = _uneven(schema, plan)
        bad = table.bad + self._reject_uneven(rejects)
        self.facts: dict[str, Any] = {
            "input": {"read": table.read, "used": table.read - bad, "bad": bad}
        }
        engine.create(
            "events", _events(plan, schema, rules, [met for met, _, _ in self._uneven]), view=True
        )
        checks.check_lists(engine, plan, schema)
        warnings += checks.check_conditions(engine, plan, schema, rules)
        rows = engine.query(f"SELECT count(*) AS n FROM events WHERE {ROW}")["n"][0].as_py()
        if not rows:
            raise UsageError(f"{files.what} has no usable row; name other files, or correct them")
        begins = None
        if isinstance(rules.split, TimeSplit):
            begins = checks.split_begins(engine, rules.split, rows, rules.time_unit)
            self.facts |= dict(zip(checks.MOMENTS, map(checks.iso, begins), strict=True))
        else:
            checks.check_split_texts(engine, rules.split)
        which = f"CASE WHEN {ROW} THEN {statements.which_split(rules.split, begins)} ELSE -1 END"
        engine.create("parts", f"SELECT *, {which} AS {SPLIT} FROM events", view=True)
        checks.check_splits(engine, rules, rows)
        engine.create("marked", "SELECT * FROM parts", view=True)
        counts = engine.query(count_statements.row_facts(())).to_pylist()
        warnings += checks.check_labels({SPLITS[row["split"]]: row for row in counts})
        for line in warnings:
            say(line)
        if begins is not None:
            self.facts["days"] = days_of(engine, 1)
        self.facts |= {"warnings": warnings, "build": rules.as_written}

    def batches(self, split: str) -> Iterator[pa.Table]:
        """The rows of a split, in the order of the files."""
        names = f"{LABEL} AS {', '.join(map(ident, self._names))}"
        query = f"SELECT {names} FROM parts WHERE {SPLIT} = {SPLITS.index(split)} ORDER BY {PLACE}"
        yield from self._engine.batches(query, _BATCH)

    def _reject_uneven(self, rejects: Rejects) -> int:
        """Rejects rows whose sequences have lists of different lengths; returns how many."""
        if not self._uneven:
            return 0
        column = cases([(met, text(column)) for met, column, _ in self._uneven])
        value = cases([(met, lengths) for met, _, lengths in self._uneven])
        found = self._engine.query(
            f"SELECT {FILE} AS file, {PLACE} AS place, {column} AS name, {value} AS value FROM "
            f"typed_rows WHERE {BAD_REASON} IS NULL AND {column} IS NOT NULL ORDER BY {PLACE}"
        ).to_pylist()
        places = [(row["file"], row["place"]) for row in found]
        numbers = checks.row_numbers(self._engine, "typed_rows", places)
        for row, number in zip(found, numbers, strict=True):
            rejects.add(row["file"], BadRow(number, row["name"], LENGTHS, row["value"]))
        return len(found)


def _uneven(schema: Schema, plan: Plan) -> list[tuple[str, str, str]]:
    """(whether the lists of a field and of its sequence's first differ, its column, both lengths)."""
    found = []
    for sequence in schema.sequences:
        first, *others = (f"array_length({ident(field_column(f.name))})" for f in sequence.fields)
        for field, own in zip(sequence.fields[1:], others, strict=True):
            both = f"{own} || ' and ' || {first}"
            found.append((f"{own} <> {first}", plan.fields[field.name].column, both))
    return found


def _events(plan: Plan, schema: Schema, rules: GivenRules, uneven: list[str]) -> str:
    """The good rows, whether they are wanted, and their columns by the names of features and fields."""
    label = f"e.{LABEL}"
    if rules.label is not None:
        label = f"CAST(CASE WHEN {meets(rules.label, plan, schema)} THEN 1 ELSE 0 END AS TINYINT)"
    row = "TRUE" if rules.rows is None else meets(rules.rows, plan, schema, "__y")
    select = [f"e.{PLACE}", f"__y AS {LABEL}", f"{row} AS {ROW}"]
    select.append(
        f"e.{SPLIT} AS __split_text" if isinstance(rules.split, ColumnSplit) else f"e.{TIME}"
    )
    select += [f"e.{ident(s.typed)} AS {ident(name)}" for name, s in plan.features.items()]
    select += [f"e.{ident(field_column(name))} AS {ident(name)}" for name in plan.fields]
    good = " AND ".join([f"e.{BAD_REASON} IS NULL", *(f"NOT {met}" for met in uneven)])
    return f"SELECT {', '.join(select)} FROM (SELECT *, {label} AS __y FROM typed_rows e) e WHERE {good}"
