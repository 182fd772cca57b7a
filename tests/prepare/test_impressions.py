"""Impressions, a row of which lists the items shown: logs written by hand, of both kinds."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema
from loopctr_tf.prepare.files import TextOptions
from loopctr_tf.prepare.prepare import REJECTED, prepare_events
from loopctr_tf.prepare.rules import read_rules
from tests.prepare.logs import stored_rows
from tests.prepare.spark import require_spark, small_spark
from tests.prepare.test_prepare import folder_bytes

# (user, time, [(item, clicked)]) in the order of the files.
VISITS = [
    ("u1", 100, [("1", 1), ("2", 0), ("3", 0)]),
    ("u2", 150, [("2", 0), ("1", 1)]),
    ("u1", 200, [("4", 0), ("2", 1), ("1", 1)]),
    ("u1", 300, [("3", 0), ("5", 1)]),
    ("u2", 400, [("5", 0), ("4", 1)]),
    ("u1", 500, [("5", 0), ("2", 1)]),
]
# By the label 1, at most three events, oldest first, all earlier.
HISTORIES = {
    ("u1", 100): [],
    ("u2", 150): [],
    ("u1", 200): ["1"],
    ("u1", 300): ["1", "2", "1"],
    ("u2", 400): ["1"],
    ("u1", 500): ["2", "1", "5"],
}
SPLITS = {"train": (0, 3), "valid": (3, 5), "test": (5, 6)}
LISTS = {"shown": "inview", "clicked": "clicks"}
MARKED = {"shown": "items", "click_suffix": "-1", "other_suffix": "-0"}


def schema_of(impressions: dict, dtype: str = "string", **build) -> dict:
    values = {
        "version": 1,
        "label": "clicked",
        "group": "user",
        "tables": {
            "item": {"vocabulary": [], "dtype": dtype},
            "device": {"vocabulary": []},
        },
        "features": [
            {"name": "news", "type": "categorical", "side": "item", "table": "item"},
            {"name": "device", "type": "categorical", "side": "context", "table": "device"},
        ],
        "sequences": [
            {
                "name": "clicks",
                "max_length": 3,
                "fields": [{"name": "clicks_news", "type": "categorical", "table": "item"}],
            }
        ],
    }
    clicks = {"where": {"column": "clicked", "values": [1]}, "fields": {"clicks_news": "news"}}
    section = {
        "user": "user",
        "item": "news",
        "time": "time",
        "impressions": impressions,
        "sequences": {"clicks": clicks},
        "split": {"by": "time", "valid_from": 300, "test_from": 500},
    }
    section = {k: v for k, v in {**section, **build}.items() if v is not None}
    return {**values, "build": section}


def rows_of_lists(visits=VISITS, kind=str) -> list[dict]:
    """As EB-NeRD has them: two columns of lists."""
    return [
        {
            "user": user,
            "time": time,
            "device": f"d{time}",
            "inview": [kind(item) for item, _ in items],
            "clicks": [kind(item) for item, clicked in items if clicked],
        }
        for user, time, items in visits
    ]


def marked_rows(visits=VISITS) -> str:
    """As MIND has them: text separated by tabs, without a header."""
    return "".join(
        f"{user}\t{time}\td{time}\t{' '.join(f'{item}-{clicked}' for item, clicked in items)}\n"
        for user, time, items in visits
    )


def arguments(folder, schema: dict, rows) -> dict:
    """The rows in a file, and the schema: arguments of ``prepare_events``."""
    (folder / "schema.yaml").write_text(yaml.safe_dump(schema))
    found = {"schema_path": folder / "schema.yaml"}
    if isinstance(rows, str):
        (folder / "log.tsv").write_text(rows)
        options = TextOptions("\t", ("user", "time", "device", "items"), False)
        return {**found, "events": folder / "log.tsv", "text": options}
    if isinstance(rows, pa.Table):
        pq.write_table(rows, folder / "log.parquet")
        return {**found, "events": folder / "log.parquet"}
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return {**found, "events": folder / "log.jsonl"}


def bracketed(rows: list[dict]) -> str:
    lines = [f"{r['user']}\t{r['time']}\td{r['time']}\t{r['inview']}\t{r['clicks']}" for r in rows]
    return "user\ttime\tdevice\tinview\tclicks\n" + "\n".join(lines) + "\n"


def separated(rows: list[dict]) -> str:
    return bracketed(rows).translate(str.maketrans({"[": "", "]": "", "'": "", ",": "|", " ": ""}))


SPACES = {"items": {"separator": " "}}
BARS = {"inview": {"separator": "|"}, "clicks": {"separator": "|"}}
CASES = {
    "Parquet lists of text": (schema_of(LISTS), pa.Table.from_pylist(rows_of_lists())),
    "Parquet lists of whole numbers": (
        schema_of(LISTS, "int64"),
        pa.Table.from_pylist(rows_of_lists(kind=int)),
    ),
    "JSON": (schema_of(LISTS), rows_of_lists(kind=int)),
    "brackets": (schema_of(LISTS, "int64"), bracketed(rows_of_lists())),
    "separators": (schema_of(LISTS, columns=BARS), separated(rows_of_lists())),
    "suffixes": (schema_of(MARKED, columns=SPACES), marked_rows()),
    "suffixes of whole numbers": (schema_of(MARKED, "int64", columns=SPACES), marked_rows()),
    "one suffix": (
        schema_of({"shown": "items", "click_suffix": "-1"}, columns=SPACES),
        marked_rows().replace("-0", ""),
    ),
}


def given(folder, name: str) -> dict:
    schema, rows = CASES[name]
    found = arguments(folder, schema, rows)
    if name in ("brackets", "separators"):
        found["text"] = TextOptions()
    return found


@pytest.mark.parametrize("name", CASES)
def test_every_item_shown_is_a_row(tmp_path, name):
    said = []
    given_arguments = given(tmp_path, name)
    stats = prepare_events(**given_arguments, out=tmp_path / "out", workers=1, say=said.append)
    whole = CASES[name][0]["tables"]["item"]["dtype"] == "int64"
    for split, (begin, end) in SPLITS.items():
        expected = [
            ([float(clicked)], user, item, f"d{time}", HISTORIES[user, time])
            for user, time, items in VISITS[begin:end]
            for item, clicked in items
        ]
        found = [
            (
                row["clicked"],
                row["user"][0],
                str(row["news"][0]),
                row["device"][0],
                [str(item) for item in row["clicks_news"]],
            )
            for row in stored_rows(tmp_path / "out", split)
        ]
        assert found == expected
        assert all(
            isinstance(row["news"][0], int) == whole for row in stored_rows(tmp_path / "out", split)
        )
    assert stats["events"] == {"read": 14, "used": 14, "bad": 0, "duplicates": 0}
    facts = {"read": 6, "bad": 0, "nothing_shown": 0}
    assert stats["impressions"] in (facts, {**facts, "clicks_not_shown": 0})
    assert not [line for line in said if "impressions" in line]


@pytest.mark.parametrize("workers", [1, 2])
def test_empty_rows_and_clicks_on_others_are_counted(tmp_path, workers):
    rows = rows_of_lists()
    rows.insert(1, {**rows[1], "inview": [], "clicks": ["9"]})
    rows[3]["clicks"] = ["2", "8"]
    rows.append({**rows[0], "time": 600, "inview": None, "clicks": None})
    said = []
    found = arguments(tmp_path, schema_of(LISTS), pa.Table.from_pylist(rows))
    stats = prepare_events(**found, out=tmp_path / "out", workers=workers, say=said.append)
    assert stats["impressions"] == {
        "read": 8,
        "bad": 0,
        "nothing_shown": 2,
        "clicks_not_shown": 2,
    }
    assert stats["events"]["used"] == 14
    path = repr(str(tmp_path / "log.parquet"))
    assert said[:2] == [
        "build: impressions: 2 of 8 rows show no item in column 'inview' and make no event (such as "
        f"{path}, row 2)",
        "build: impressions: 2 items of column 'clicks' are not among those shown in their row and make "
        f"no event (such as '9', {path}, row 2)",
    ]
    assert stats["warnings"][:2] == said[:2]


def refused(folder, schema, rows) -> str:
    with pytest.raises(UsageError) as error:
        prepare_events(**arguments(folder, schema, rows), out=folder / "out", workers=1)
    assert not (folder / "out").exists()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_bad_rows_are_named_by_their_row(tmp_path):
    rows = rows_of_lists()
    rows[2]["inview"] = ["4", "x", "1"]
    table = pa.Table.from_pylist(rows)
    message = refused(tmp_path, schema_of(LISTS, "int64"), table)
    assert "log.parquet', row 3, column 'news'" in message
    assert "'x'" in message
    rows[2] = {**rows[2], "inview": ["4", "4"], "clicks": []}
    message = refused(tmp_path, schema_of(LISTS), pa.Table.from_pylist(rows))
    assert "log.parquet', row 3: duplicate event, 'user u1'" in message
    rows[2]["user"] = None
    message = refused(tmp_path, schema_of(LISTS), pa.Table.from_pylist(rows))
    assert "row 3, column 'user': missing" in message


def test_items_without_a_suffix_are_bad(tmp_path):
    text = marked_rows().replace("3-0 5-1", "3 5-1")
    message = refused(tmp_path, schema_of(MARKED, columns=SPACES), text)
    assert (
        "row 4, column 'items': item with neither click_suffix nor other_suffix, '3'; " in message
    )
    found = arguments(tmp_path, schema_of(MARKED, columns=SPACES), text)
    stats = prepare_events(**found, out=tmp_path / "out", workers=1, skip_bad=True)
    assert stats["events"] == {"read": 14, "used": 13, "bad": 1, "duplicates": 0}
    assert stats["rejected"] == {"item with neither click_suffix nor other_suffix": 1}
    assert (tmp_path / "out" / REJECTED).read_text().splitlines()[1].split(",")[1:3] == [
        "4",
        "items",
    ]


def test_columns_that_cannot_be_are_refused(tmp_path):
    table = pa.Table.from_pylist(rows_of_lists())
    message = refused(tmp_path, schema_of({**LISTS, "shown": "seen"}), table)
    assert message.startswith("build: impressions: --events has no column 'seen'; its columns are")
    message = refused(tmp_path, schema_of(LISTS), table.append_column("news", table["user"]))
    assert message.startswith(
        "build: item: --events has a column 'news', and the one made of build"
    )
    message = refused(tmp_path, schema_of(LISTS), table.append_column("clicked", table["time"]))
    assert message.startswith("label: --events has a column 'clicked', and the one made of build")
    empty = [{**row, "inview": []} for row in rows_of_lists()]
    schema = pa.Table.from_pylist(rows_of_lists()).schema
    message = refused(tmp_path, schema_of(LISTS), pa.Table.from_pylist(empty, schema))
    assert message.startswith("build: impressions: no row of --events shows an item (")


MISTAKES = [
    ({"item": None}, "build: impressions needs build: item, the name for the column of the items"),
    ({"label": {"column": "x", "at_least": 1}}, "build has both impressions and label; with"),
    ({"negatives": {"per_positive": 1}}, "build has both impressions and negatives; with"),
    ({"exact_order": True}, "build has impressions and exact_order: true, which puts items into"),
    ({"impressions": {"shown": "a"}}, "impressions: give either clicked or click_suffix, and not"),
    ({"impressions": {"shown": "a", "clicked": "a"}}, "shown and clicked are both 'a'; name two"),
    (
        {"impressions": {"shown": "a", "clicked": "b", "other_suffix": "-0"}},
        "impressions: other_suffix is '-0'; give click_suffix too",
    ),
    (
        {"impressions": {"shown": "a", "click_suffix": "-1", "other_suffix": "1"}},
        "click_suffix '-1' ends with other_suffix; clicks must be known by it",
    ),
    ({"impressions": {"shown": "a", "click_suffix": -1}}, "click_suffix is -1, an int; give text"),
]


@pytest.mark.parametrize(("build", "words"), MISTAKES, ids=[words for _, words in MISTAKES])
def test_a_mistake_is_one_line(build, words):
    values = schema_of(**{"impressions": LISTS, **build})
    section = values.pop("build")
    with pytest.raises(UsageError) as error:
        read_rules(section, Schema.from_dict(values))
    assert words in str(error.value)


@pytest.mark.slow
def test_spark_writes_the_same_bytes(tmp_path):
    require_spark()
    found = given(tmp_path, "suffixes")
    prepare_events(**found, out=tmp_path / "duckdb", workers=1)
    prepare_events(**found, out=tmp_path / "spark", engine=small_spark)
    assert folder_bytes(tmp_path / "duckdb") == folder_bytes(tmp_path / "spark")
