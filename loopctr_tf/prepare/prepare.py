"""Makes a prepared folder from an event log: read, check, mark, fit, write."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from loopctr_tf.features.prepared import SHARD_ROWS, SPLITS, PreparedWriter
from loopctr_tf.features.schema import Schema
from loopctr_tf.files import new_folder
from loopctr_tf.prepare import checks, count_statements, statements
from loopctr_tf.prepare.duckdb_engine import DuckDBEngine
from loopctr_tf.prepare.engine import Engine, number_of_parts
from loopctr_tf.prepare.files import DEFAULT_TEXT, MixedFiles, TextOptions
from loopctr_tf.prepare.fit import fit_events
from loopctr_tf.prepare.impressions import Impressions
from loopctr_tf.prepare.kernel import Job
from loopctr_tf.prepare.plan import FILES, ITEM, TIME, USER, Plan, make_plan
from loopctr_tf.prepare.reading import read_table
from loopctr_tf.prepare.rejects import Rejects
from loopctr_tf.prepare.rule_parts import TimeSplit
from loopctr_tf.prepare.rules import Rules, load_rules
from loopctr_tf.prepare.typed import WantedColumn
from loopctr_tf.prepare.vectors import Pretrained, Vectors
from loopctr_tf.prepare.workers import worker_count

REJECTED = "rejected.csv"
"""Name of the file with the rejected rows."""

Paths = str | Path | Iterable[str | Path]


def prepare_events(
    schema_path: str | Path,
    events: Paths,
    out: str | Path,
    *,
    items: Paths | None = None,
    users: Paths | None = None,
    vectors: Vectors | None = None,
    text: TextOptions = DEFAULT_TEXT,
    skip_bad: bool = False,
    engine: Callable[[Path, int], Any] | None = None,
    memory: str = "2GB",
    workers: int | None = None,
    progress: bool = False,
    say: Callable[[str], Any] = lambda line: None,
    shard_rows: int = SHARD_ROWS,
) -> dict[str, Any]:
    """Builds the prepared folder ``out`` from an event log, by the rules described in ``rules``.

    The same input gives the same bytes for any number of workers and any engine. ``out`` appears only
    when complete. Within a split, rows are in order of a part of the users, then of time.

    Args:
      schema_path: schema.yaml with a section `build`.
      events: Parquet, CSV or JSON-lines files, or folders of them, in order.
      out: must not exist; temporary files lie beside it.
      items, users: tables joined by the columns that the rules call item and user.
      vectors: table -> (values, array), pretrained vectors. The vocabulary of such a table contains only
        values with a vector.
      text: how text files are read.
      skip_bad: leave bad rows out, count them in stats.json and list them in rejected.csv.
      engine: makes an engine of (folder for temporary files, workers); DuckDB by default.
      memory: limit of DuckDB's memory; the processes that work on parts come on top.
      workers: processes; None means all cores.
      progress: whether to show progress bars.
      say: takes lines for the screen: what was assumed, warnings with counts and examples.
      shard_rows: maximum rows per TFRecord shard.

    Returns:
      The content of ``stats.json``.

    Raises:
      UsageError: for a schema, rules or files that are absent, malformed or inconsistent, a bad row
        (without ``skip_bad``), a condition that no event meets, a join that finds nothing, a split
        without rows, or an existing ``out``.
    """
    workers = worker_count(workers)
    schema, rules = load_rules(schema_path)
    pretrained = Pretrained(schema, vectors)
    given = {"events": events, "items": items, "users": users}
    make = engine or (lambda folder, count: DuckDBEngine(folder, count, memory))
    with new_folder(out) as folder, Rejects(folder / REJECTED if skip_bad else None) as rejects:
        files = {
            name: MixedFiles(paths, FILES[name], text)
            for name, paths in given.items()
            if paths is not None
        }
        plan = make_plan(schema, rules, {name: f.columns for name, f in files.items()})
        with make(folder.with_name(f"{folder.name}.work"), workers) as engine:
            log = _Log(engine, files, plan, schema, rules, rejects, say)
            job, parts = log.job(schema), log.parts
            with _bar("marking", " events", progress, log.facts["events"]["used"]) as bar:
                engine.mark(job, parts, bar.update)
            counts = engine.query(count_statements.row_facts(rules.sequences)).to_pylist()
            by_split = {SPLITS[row["split"]]: row for row in counts}
            if rules.negatives is None:
                log.warn(checks.check_labels(by_split))
            fitted = pretrained.into(fit_events(engine, job))
            writer = PreparedWriter(folder, fitted, shard_rows)
            total = sum(row["n"] for row in counts) * job.per_event
            with _bar("writing", " rows", progress, total) as bar:
                shards = engine.write(job.fitted(fitted), parts, folder, shard_rows, bar.update)
            for shard in shards:
                writer.add(shard.split, shard.rows, shard.clicks, shard.name)
            return writer.finish(
                **log.facts,
                rejected=rejects.counts,
                days=days_of(engine, job.per_event),
                histories={
                    name: {
                        "mean_events": sum(r[f"{name} events"] for r in counts)
                        / sum(r["n"] for r in counts),
                        "rows_without": sum(r[f"{name} empty"] for r in counts) * job.per_event,
                    }
                    for name in (sequence.name for sequence in schema.sequences)
                },
                **({"vectors": pretrained.facts} if pretrained.facts else {}),
                warnings=log.warnings,
                protocol="honest",
                build=rules.as_written,
            )


class _Log:
    """Reads, checks and splits the events; afterwards the engine has them in parts.

    Attributes:
      facts: for stats.json.
      warnings: said so far.
      parts: number of parts.
    """

    def __init__(
        self,
        engine: Engine,
        files: dict[str, MixedFiles],
        plan: Plan,
        schema: Schema,
        rules: Rules,
        rejects: Rejects,
        say: Callable[[str], Any],
    ):
        self._engine, self._files, self._plan, self._rules = engine, files, plan, rules
        self._say, self.warnings = say, []
        self.facts: dict[str, Any] = {}
        tables = {}
        for name, table_files in files.items():
            self.warn(table_files.notes)
            self.warn(absent_columns(table_files, plan.read(name)))
            if name == "events" and rules.impressions is not None:
                impressions = Impressions(engine, table_files, plan, rules.impressions, rejects)
                self.warn(impressions.warnings)
                self.facts["impressions"] = impressions.facts
                tables[name] = impressions.events(rules.item, schema.label)
            else:
                tables[name] = read_table(engine, name, table_files, plan.wanted[name], rejects)
        for name, key in (("items", ITEM), ("users", USER)):
            if name in files:
                tables[name].reject_repeated(key)
                engine.create(f"kept_{name}", statements.kept_rows(name, key))
        twice = tables["events"].reject_duplicates() if rules.duplicates == "reject" else 0
        read, bad = tables["events"].read, tables["events"].bad
        self.facts["events"] = {
            "read": read,
            "used": read - bad - twice,
            "bad": bad,
            "duplicates": twice,
        }
        self._twice = bool(twice)

    def warn(self, lines: Iterable[str]) -> None:
        """Says lines, which also go to stats.json."""
        for line in lines:
            self.warnings.append(line)
            self._say(line)

    def job(self, schema: Schema) -> Job:
        """Checks the events, splits them and draws up what the kernel needs."""
        engine, plan, rules = self._engine, self._plan, self._rules
        query = statements.events(plan, schema, rules, self._files, self._twice)
        # Each statement computes the few columns that it needs.
        engine.create("events", query, view=True)
        checks.check_lists(engine, plan, schema)
        checks.check_weights(engine, plan, schema)
        self.warn(checks.check_conditions(engine, plan, schema, rules))
        self.warn(checks.check_events(engine, rules))
        lines, joined = checks.check_joins(engine, self._files, rules)
        self.warn(lines)
        self.facts |= self._counts() | joined
        rows = engine.query(f"SELECT count(*) AS n FROM events WHERE {statements.ROW}")
        rows = rows["n"][0].as_py()
        begins = None
        if isinstance(rules.split, TimeSplit):
            begins = checks.split_begins(engine, rules.split, rows, rules.time_unit)
            self.facts |= dict(zip(checks.MOMENTS, map(checks.iso, begins), strict=True))
        elif rules.split.by == "column":
            checks.check_split_texts(engine, rules.split)
        self.parts = number_of_parts(self.facts["events"]["used"])
        engine.split(statements.with_splits(rules, begins, self.parts))
        checks.check_splits(engine, rules, rows)
        if rules.split.by == "last":
            self.facts["users_wholly_in_train"] = self._wholly_in_train()
        return Job(schema, rules, plan, self._pool(schema))

    def _counts(self) -> dict[str, int]:
        keys = {"users": USER} | ({"items": ITEM} if self._rules.item is not None else {})
        counted = ", ".join(f"count(DISTINCT {key}) AS {name}" for name, key in keys.items())
        return self._engine.query(f"SELECT {counted} FROM events").to_pylist()[0]

    def _wholly_in_train(self) -> int:
        most = self._rules.split.valid + self._rules.split.test
        found = self._engine.query(
            f"SELECT count(*) AS n FROM (SELECT {USER} FROM parts WHERE {statements.SPLIT} >= 0 "
            f"GROUP BY {USER} HAVING count(*) <= {most})"
        )
        return found["n"][0].as_py()

    def _pool(self, schema):
        if self._rules.negatives is None:
            return None
        sources = {
            self._plan.features[feature.name]
            for feature in schema.features
            if feature.side == "item"
        }
        self._engine.create(
            "pool", statements.pool(sorted(sources, key=lambda s: s.name), "items" in self._files)
        )
        return self._engine.query("SELECT * FROM pool ORDER BY code")


def absent_columns(files: MixedFiles, wanted: Iterable[WantedColumn]) -> Iterator[str]:
    """Lines about columns that some files lack."""
    for column in dict.fromkeys(column.raw for column in wanted):
        lacking = files.absent(column)
        if lacking:
            yield (
                f"{files.what}: column {column!r} is in {len(files.paths) - len(lacking):,} of "
                f"{len(files.paths):,} files; its values are missing in {str(lacking[0])!r}"
                + (" and others" if len(lacking) > 1 else "")
            )


def days_of(engine: Engine, per_event: int) -> dict[str, dict[str, list[int]]]:
    """Day (UTC) -> split -> [rows, clicks]; empty if the times are ranks."""
    latest = engine.query(f"SELECT max({TIME}) AS t FROM marked")["t"][0].as_py()
    if latest < checks.EARLY:
        return {}
    found: dict[str, dict[str, list[int]]] = {}
    for row in engine.query(count_statements.days()).to_pylist():
        day = found.setdefault(str(np.datetime64(row["day"], "D")), {})
        day[SPLITS[row["split"]]] = [row["n"] * per_event, int(row["positives"])]
    return found


def _bar(what: str, unit: str, show: bool, total: int) -> tqdm:
    return tqdm(desc=what, unit=unit, total=total, disable=not show)
