"""Rows that list the items shown together and say which were clicked: an event for each item shown."""

from typing import Any

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.checks import row_numbers
from loopctr_tf.prepare.engine import Engine
from loopctr_tf.prepare.files import MixedFiles
from loopctr_tf.prepare.plan import CLICKED, SHOWN, Plan
from loopctr_tf.prepare.reading import TypedTable, read_table
from loopctr_tf.prepare.rejects import BadRow, Problem, Rejects
from loopctr_tf.prepare.rule_parts import ImpressionRule
from loopctr_tf.prepare.statements import (
    BAD_REASON,
    FILE,
    IMPRESSION,
    PLACE,
    ident,
    text,
    typed_columns,
)
from loopctr_tf.prepare.time_sql import cases

NO_SUFFIX = Problem(
    "item with neither click_suffix nor other_suffix",
    "correct it, or the suffixes (build: impressions)",
)
_ELEMENT, _NUMBER, _LABEL = "__element", "__n", "__click"
# Engines that number rows themselves have 2^45 places a file (see ``spark_engine``).
_FILE_PLACES, _MOST_SHOWN = 1 << 45, 1 << 12


class Impressions:
    """The rows of the events' files, read as ``typed_impressions`` with the lists of items.

    Args:
      engine: reads the files.
      files: of the events.
      plan: its ``lists`` are the items shown and, unless they have suffixes, those clicked.
      rule: of the section `build`.
      rejects: takes bad lines, rows and items.

    Attributes:
      warnings: lines about rows with nothing shown, and about clicks on items not shown.
      facts: for stats.json: rows read and bad, those with nothing shown, clicks on items not shown.

    Raises:
      UsageError: as ``read_table`` does, or if no row shows an item.
    """

    def __init__(
        self,
        engine: Engine,
        files: MixedFiles,
        plan: Plan,
        rule: ImpressionRule,
        rejects: Rejects,
    ):
        self._engine, self._plan, self._rule, self._rejects = engine, plan, rule, rejects
        table = read_table(engine, "impressions", files, plan.read("events"), rejects)
        self.warnings: list[str] = []
        self.facts: dict[str, Any] = {"read": table.read, "bad": table.bad}
        good = f"typed_impressions WHERE {BAD_REASON} IS NULL"
        empty = f"SELECT {FILE}, {PLACE} FROM {good} AND array_length({SHOWN}) = 0"
        count, _, place = self._found(empty)
        self.facts["nothing_shown"] = count
        used = table.read - table.bad
        if count == used:
            raise UsageError(
                f"build: impressions: no row of {files.what} shows an item ({place}): column "
                f"{rule.shown!r} holds empty lists; name another"
            )
        if count:
            self.warnings.append(
                f"build: impressions: {count:,} of {used:,} rows show no item in column {rule.shown!r} "
                f"and make no event (such as {place})"
            )
        if rule.clicked is None:
            return
        clicks = f"SELECT {FILE}, {PLACE}, {SHOWN}, unnest({CLICKED}) AS item FROM {good}"
        count, item, place = self._found(
            f"SELECT {FILE}, {PLACE}, item FROM ({clicks}) WHERE NOT list_contains({SHOWN}, item)"
        )
        self.facts["clicks_not_shown"] = count
        if count:
            self.warnings.append(
                f"build: impressions: {count:,} items of column {rule.clicked!r} are not among those "
                f"shown in their row and make no event (such as {item!r}, {place})"
            )

    def events(self, item: str, label: str) -> TypedTable:
        """Makes ``typed_events``, an event for each item, in columns called ``item`` and ``label``."""
        engine, plan = self._engine, self._plan
        each, value, unmarked = self._shown(), *self._marks()
        made = [column for column in plan.wanted["events"] if column.raw in plan.made]
        others = [column.name for column in plan.wanted["events"] if column.raw not in plan.made]
        select = [FILE, f"{PLACE} AS {IMPRESSION}", *map(ident, others)]
        select += [f"{value} AS {ident(item)}", f"{_LABEL} AS {ident(label)}"]
        if PLACE in engine.origin:
            select.append(f"{self._numbered()} AS {PLACE}")
        relation = f"(SELECT {', '.join(select)} FROM ({each}) WHERE {_LABEL} IS NOT NULL)"
        origin = [*engine.origin, IMPRESSION, *others]
        engine.create_typed("events", typed_columns(relation, made, dict(plan.made), origin))
        table = TypedTable(
            engine, self._rejects, "events", plan.wanted["events"], unmarked, unmarked
        )
        table.reject_cells()
        return table

    def _shown(self) -> str:
        """A query with a row for each item shown: the item, and 1, 0 or NULL for its label."""
        rule = self._rule
        if rule.click_suffix is None:
            label = f"CASE WHEN list_contains({CLICKED}, {_ELEMENT}) THEN 1 ELSE 0 END"
        else:
            label = cases([(_ends(rule.click_suffix), "1"), (_ends(rule.other_suffix), "0")])
        numbers = f"unnest(generate_series(1, array_length({SHOWN}))) AS {_NUMBER}"
        return (
            f"SELECT *, {label} AS {_LABEL} FROM (SELECT *, {SHOWN}[CAST({_NUMBER} AS BIGINT)] AS "
            f"{_ELEMENT} FROM (SELECT *, {numbers} FROM typed_impressions WHERE {BAD_REASON} IS NULL "
            f"AND array_length({SHOWN}) > 0))"
        )

    def _marks(self) -> tuple[str, int]:
        """(the item without its suffix, how many items have none and are rejected)."""
        rule = self._rule
        if rule.click_suffix is None:
            return _ELEMENT, 0
        found = self._engine.query(
            f"SELECT {FILE}, {PLACE}, {_ELEMENT} FROM ({self._shown()}) WHERE {_LABEL} IS NULL "
            f"ORDER BY {PLACE}"
        ).to_pylist()
        places = [(row[FILE], row[PLACE]) for row in found]
        numbers = row_numbers(self._engine, "typed_impressions", places)
        for row, number in zip(found, numbers, strict=True):
            bad = BadRow(number, rule.shown, NO_SUFFIX, row[_ELEMENT])
            self._rejects.add(row[FILE], bad)
        whens = [
            (f"{_LABEL} = {value}", f"left({_ELEMENT}, length({_ELEMENT}) - {len(suffix)})")
            for value, suffix in ((1, rule.click_suffix), (0, rule.other_suffix))
        ]
        return cases(whens), len(found)

    def _numbered(self) -> str:
        """Places of events, for engines that do not number rows themselves; UsageError beyond them."""
        inside = f"{PLACE} % {_FILE_PLACES}"
        found = self._engine.query(
            f"SELECT max(array_length({SHOWN})) AS items, max({inside}) AS place FROM typed_impressions"
        ).to_pylist()[0]
        if found["items"] >= _MOST_SHOWN or found["place"] >= _FILE_PLACES // _MOST_SHOWN:
            raise UsageError(
                f"build: impressions: rows show up to {found['items']:,} items, in files of up to "
                f"{found['place']:,} bytes or rows; give less than {_MOST_SHOWN:,} items, files below "
                "8 GB"
            )
        return f"{PLACE} - {inside} + {inside} * {_MOST_SHOWN} + {_NUMBER}"

    def _found(self, query: str) -> tuple[int, Any, str]:
        """(number of rows of a query, the item of the first, where that is)."""
        count = self._engine.query(f"SELECT count(*) AS n FROM ({query})")["n"][0].as_py()
        if not count:
            return 0, None, ""
        row = self._engine.query(f"{query} ORDER BY {PLACE} LIMIT 1").to_pylist()[0]
        number = row_numbers(self._engine, "typed_impressions", [(row[FILE], row[PLACE])])[0]
        return count, row.get("item"), f"{row[FILE]!r}, row {number:,}"


def _ends(suffix: str) -> str:
    return f"right({_ELEMENT}, {len(suffix)}) = {text(suffix)}" if suffix else "TRUE"
