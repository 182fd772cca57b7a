"""SQL in DuckDB's dialect, from typed tables of the input to events with their splits.

Every engine runs these statements; ``spark_engine`` respells them with sqlglot. What is counted of
marked events is in ``count_statements``.
"""

from collections.abc import Iterable, Sequence

from loopctr_tf.features.columns import PADDING
from loopctr_tf.features.schema import Schema
from loopctr_tf.prepare.file_paths import FILE
from loopctr_tf.prepare.plan import ITEM, LABEL, SPLIT, TIME, USER, Plan, Source
from loopctr_tf.prepare.rule_parts import ColumnSplit, Condition, LastSplit, TimeSplit
from loopctr_tf.prepare.rules import Rules
from loopctr_tf.prepare.text_scan import literal as text
from loopctr_tf.prepare.text_scan import quoted as ident
from loopctr_tf.prepare.typed import WantedColumn, typed

BAD_COLUMN, BAD_REASON, BAD_VALUE = "__bad_column", "__bad_reason", "__bad_value"
PLACE, PART, ROW, NEGATIVES = "__place", "__part", "__row", "__negatives"
IMPRESSION = "__impression"
"""Column of events that are made of impressions: the place of theirs."""
TYPES = {"string": "VARCHAR", "int64": "BIGINT", "float32": "REAL"}
HOUR, DAY = 3_600_000_000, 86_400_000_000
"""Microseconds."""


def typed_columns(
    raw: str, columns: Sequence[WantedColumn], types: dict[str, str], origin: Sequence[str] = ()
) -> str:
    """Typed columns of a table, with the first problem of each row in ``__bad_*``.

    Args:
      raw: name of the table as it was read.
      columns: to read.
      types: types of the columns of ``raw``.
      origin: columns of ``raw`` that say where a row comes from, which stay.
    """
    cells = [(column, typed(column, types[column.raw])) for column in columns]
    inner = [ident(name) for name in origin]
    inner += [f"{cell.value} AS {ident(column.name)}" for column, cell in cells]
    inner += [f"{cell.problem} AS {ident(f'__p{i}')}" for i, (_, cell) in enumerate(cells)]
    inner += [
        f"CAST({ident(c.raw)} AS VARCHAR) AS {ident(f'__v{i}')}" for i, c in enumerate(columns)
    ]
    names = ", ".join(map(ident, [*origin, *(column.name for column in columns)]))
    problems = [ident(f"__p{i}") for i in range(len(columns))]

    def first(values: Iterable[str]) -> str:
        whens = (f"WHEN {p} IS NOT NULL THEN {v}" for p, v in zip(problems, values, strict=True))
        return f"CASE {' '.join(whens)} END"

    return (
        f"SELECT {names}, {first(text(c.raw) for c in columns)} AS {BAD_COLUMN}, "
        f"coalesce({', '.join([*problems, 'NULL'])}) AS {BAD_REASON}, "
        f"{first(ident(f'__v{i}') for i in range(len(columns)))} AS {BAD_VALUE} "
        f"FROM (SELECT {', '.join(inner)} FROM {raw})"
    )


def with_missing(raw: str, columns: Sequence[str]) -> str:
    """A table with columns that it lacks, as missing values."""
    if not columns:
        return raw
    missing = ", ".join(
        f"CAST(NULL AS VARCHAR) AS {ident(name)}" for name in dict.fromkeys(columns)
    )
    return f"(SELECT *, {missing} FROM {raw})"


def bad_cells(table: str) -> str:
    """(file, place, column, reason, value) of the bad rows of a typed table, in order."""
    return (
        f"SELECT {FILE}, {PLACE}, {BAD_COLUMN}, {BAD_REASON}, {BAD_VALUE} FROM {table} "
        f"WHERE {BAD_REASON} IS NOT NULL ORDER BY {PLACE}"
    )


def duplicates(table: str, columns: Sequence[WantedColumn]) -> str:
    """Places of good events that equal an earlier one in all columns read."""
    names = ", ".join(ident(column.name) for column in columns)
    moment = f"hash({USER}, {TIME})"
    # Only events that share user and time can be equal; finding those takes eight bytes an event.
    tied = (
        f"SELECT h FROM (SELECT {moment} AS h FROM {table} WHERE {BAD_REASON} IS NULL) "
        "GROUP BY h HAVING count(*) > 1"
    )
    return (
        f"SELECT {FILE}, {PLACE}, {USER} FROM (SELECT {FILE}, {PLACE}, {USER}, "
        f"row_number() OVER (PARTITION BY {names} ORDER BY {PLACE}) AS copy "
        f"FROM {table} WHERE {BAD_REASON} IS NULL AND {moment} IN ({tied})) "
        f"WHERE copy > 1 ORDER BY {PLACE}"
    )


def repeated_keys(table: str, key: str) -> str:
    """Good rows of an item or user table whose key an earlier row has."""
    return (
        f"SELECT {FILE}, {PLACE}, {key} FROM (SELECT {FILE}, {PLACE}, {key}, "
        f"row_number() OVER (PARTITION BY {key} ORDER BY {PLACE}) AS copy "
        f"FROM {table} WHERE {BAD_REASON} IS NULL) WHERE copy > 1 ORDER BY {PLACE}"
    )


def meets(condition: Condition, plan: Plan, schema: Schema, label: str | None = None) -> str:
    """Whether an event meets a condition; ``label`` is what stands for the schema's label."""
    by_value = condition.values is not None
    if label is not None and condition.column == schema.label:
        left = f"CAST({label} AS VARCHAR)" if by_value else label
    else:
        left = ident(plan.conditions[condition.column, "string" if by_value else "float32"])
    if by_value:
        met = f"{left} IN ({', '.join(map(text, condition.values))})"
    else:
        met = f"{left} >= CAST({condition.at_least!r} AS REAL)"
    return f"coalesce({met}, FALSE)"


def events(plan: Plan, schema: Schema, rules: Rules, tables: Iterable[str], dropped: bool) -> str:
    """The good events with label, whether they are rows, and the columns of items and users.

    Args:
      plan, schema, rules: of the events.
      tables: those that are given, as ``typed_<table>``; items and users also as ``kept_<table>``.
      dropped: whether a table ``duplicates`` has the places of events to leave out.
    """
    if rules.negatives is not None:
        label = "CAST(1 AS TINYINT)"
    elif rules.label is not None:
        label = f"CAST(CASE WHEN {meets(rules.label, plan, schema)} THEN 1 ELSE 0 END AS TINYINT)"
    else:
        label = f"e.{LABEL}"
    row = "TRUE" if rules.rows is None else meets(rules.rows, plan, schema, "__y")
    select = [f"e.{PLACE}", f"e.{USER}", f"e.{TIME}", f"__y AS {LABEL}", f"{row} AS {ROW}"]
    if rules.item is not None:
        select.append(f"e.{ITEM}")
    if isinstance(rules.split, ColumnSplit):
        select.append(f"e.{SPLIT} AS __split_text")
    for number, where in enumerate(distinct_conditions(rules)):
        met = "TRUE" if where is None else meets(where, plan, schema, "__y")
        select.append(f"{met} AS __in_{number}")
    select += [
        f"{_filled(source, rules.utc_offset)} AS {ident(source.name)}" for source in plan.stored
    ]
    joins = ""
    for table, key in (("items", ITEM), ("users", USER)):
        if table in tables:
            joins += f" LEFT JOIN kept_{table} {table} ON e.{key} = {table}.{key}"
    where = f" WHERE e.{BAD_REASON} IS NULL"
    if dropped:
        where += f" AND e.{PLACE} NOT IN (SELECT {PLACE} FROM duplicates)"
    return (
        f"SELECT {', '.join(select)} FROM (SELECT *, {label} AS __y FROM typed_events e) e"
        f"{joins}{where}"
    )


def kept_rows(table: str, key: str) -> str:
    """The first good row of each key of an item or user table."""
    return (
        f"SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY {key} ORDER BY {PLACE}) AS copy "
        f"FROM typed_{table} WHERE {BAD_REASON} IS NULL) WHERE copy = 1"
    )


def distinct_conditions(rules: Rules) -> list[Condition | None]:
    """The different conditions of the sequences, in their order."""
    found: list[Condition | None] = []
    for rule in rules.sequences.values():
        if rule.where not in found:
            found.append(rule.where)
    return found


def time_part(part: str, time: str, utc_offset: float) -> str:
    """The hour (0 to 23) or weekday (Monday 0 to Sunday 6) of a time in microseconds.

    Args:
      part: "hour" or "weekday".
      time: expression.
      utc_offset: hours that local time is ahead of UTC.
    """
    # 1970 began on a Thursday. Remainders of negative numbers are negative.
    begin, period, step = {"hour": (0, DAY, HOUR), "weekday": (3 * DAY, 7 * DAY, DAY)}[part]
    local = f"{time} + {begin + round(utc_offset * HOUR)}"
    return f"CAST(floor(((({local}) % {period} + {period}) % {period}) / {step}.0) AS BIGINT)"


def _filled(source: Source, utc_offset: float = 0) -> str:
    """A source's column, with the padding value of its type for a missing one."""
    if source.table in ("label", "time"):
        value = "__y"
        if source.table == "time":
            value = time_part(source.column, f"e.{TIME}", utc_offset)
        value = f"CAST({value} AS {TYPES[source.type]})"
        return f"[{value}]" if source.many else value
    table = source.table if source.table != "events" else "e"
    column = f"{table}.{ident(source.typed)}"
    if source.most and source.keep == "first":
        column = f"array_slice({column}, 1, {source.most})"
    elif source.most:
        column = f"list_reverse(array_slice(list_reverse({column}), 1, {source.most}))"
    if source.many:
        return f"coalesce({column}, CAST([] AS {TYPES[source.type]}[]))"
    if source.type == "float32":
        return column
    padding = PADDING[source.type]
    return f"coalesce({column}, {text(padding) if isinstance(padding, str) else padding})"


def nth_time(offset: int) -> str:
    """The time at ``offset`` among those of the rows, ascending."""
    return f"SELECT {TIME} FROM events WHERE {ROW} ORDER BY {TIME} LIMIT 1 OFFSET {offset}"


def which_split(split: TimeSplit | ColumnSplit, begins: Sequence[int] | None) -> str:
    """A row's split as a number; ``begins`` as for :func:`with_splits`."""
    if isinstance(split, TimeSplit):
        return (
            f"CASE WHEN {TIME} >= {begins[1]} THEN 2 WHEN {TIME} >= {begins[0]} THEN 1 ELSE 0 END"
        )
    whens = " ".join(
        f"WHEN {text(value)} THEN {('train', 'valid', 'test').index(name)}"
        for value, name in split.values.items()
    )
    return f"CASE __split_text {whens} ELSE -2 END"


def with_splits(rules: Rules, begins: Sequence[int] | None, parts: int) -> str:
    """The events with ``__split`` (0, 1, 2 as ``prepared.SPLITS``; -1 for no row) and ``__part``.

    Args:
      rules: their split.
      begins: first microsecond of valid and test, of a split by time.
      parts: number of parts; all events of a user are in one.
    """
    split = rules.split
    table, extra = "events", ""
    if isinstance(split, LastSplit):
        some = split.valid + split.test
        which = (
            f"CASE WHEN __rows <= {some} THEN 0 WHEN __from_end <= {split.test} THEN 2 "
            f"WHEN __from_end <= {some} THEN 1 ELSE 0 END"
        )
        table = (
            f"(SELECT *, row_number() OVER (PARTITION BY {USER}, {ROW} ORDER BY {TIME} DESC, "
            f"{PLACE} DESC) AS __from_end, count(*) OVER (PARTITION BY {USER}, {ROW}) AS __rows "
            "FROM events)"
        )
        extra = ", __from_end, __rows"
    else:
        which = which_split(split, begins)
        extra = ", __split_text" if isinstance(split, ColumnSplit) else ""
    return (
        f"SELECT * EXCLUDE ({ROW}{extra}), CAST(CASE WHEN {ROW} THEN {which} ELSE -1 END AS TINYINT) "
        f"AS {SPLIT}, hex_number(substr(md5({USER}), 1, 8)) % {parts} AS {PART} FROM {table}"
    )


def value_shares(column: str, table: str, most: int = 12) -> str:
    """The commonest values of a column with their numbers of events, for messages."""
    return (
        f"SELECT CAST({ident(column)} AS VARCHAR) AS value, count(*) AS n FROM {table} "
        f"GROUP BY 1 ORDER BY n DESC, value LIMIT {most}"
    )


def pool(sources: Sequence[Source], given: bool) -> str:
    """The items of all events, with their rows by split and the item features; ``code`` numbers them.

    Args:
      sources: of item features: in the item table, or the id in the events.
      given: whether there is an item table.
    """
    counts = ", ".join(
        f"count(CASE WHEN {SPLIT} BETWEEN 0 AND {split} THEN 1 END) AS upto_{split}"
        for split in range(3)
    )
    own = [source for source in sources if source.table == "events"]
    counts += "".join(f", max({ident(source.name)}) AS {ident(source.name)}" for source in own)
    columns = "".join(
        f", {_filled(source)} AS {ident(source.name)}" for source in sources if source not in own
    )
    join = f" LEFT JOIN kept_items items ON e.{ITEM} = items.{ITEM}" if given else ""
    return (
        f"SELECT CAST(row_number() OVER (ORDER BY e.{ITEM}) - 1 AS INTEGER) AS code, e.*{columns} "
        f"FROM (SELECT {ITEM}, {counts} FROM parts GROUP BY {ITEM}) e{join}"
    )


def unmatched(table: str, key: str) -> str:
    """Keys and events of them, and how many of both have no row in the item or user table."""
    return (
        "SELECT count(*) AS keys, sum(n) AS events, "
        "count(CASE WHEN missing THEN 1 END) AS keys_without, "
        "coalesce(sum(CASE WHEN missing THEN n END), 0) AS events_without FROM ("
        f"SELECT e.{key}, e.n, t.{key} IS NULL AS missing FROM (SELECT {key}, count(*) AS n FROM events "
        f"GROUP BY {key}) e LEFT JOIN kept_{table} t ON e.{key} = t.{key})"
    )


def unmatched_examples(table: str, key: str, side: str, most: int = 3) -> str:
    """Keys of the events without a row (``side`` "events"), or of rows without events ("table")."""
    left, right = ("events", f"kept_{table}") if side == "events" else (f"kept_{table}", "events")
    return (
        f"SELECT {key} FROM (SELECT DISTINCT {key} FROM {left}) l WHERE {key} NOT IN "
        f"(SELECT {key} FROM {right} WHERE {key} IS NOT NULL) ORDER BY {key} LIMIT {most}"
    )
