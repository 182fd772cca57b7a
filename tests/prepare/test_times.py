"""Hour and weekday of the time as columns, against values worked out by hand and by ``datetime``."""

import datetime

import duckdb
import pytest

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema
from loopctr_tf.prepare import statements
from loopctr_tf.prepare.plan import make_plan
from loopctr_tf.prepare.prepare import prepare_events
from loopctr_tf.prepare.rules import read_rules
from loopctr_tf.prepare.spark_engine import respelled
from tests.prepare.logs import negatives_dict, random_log, schema_dict, stored_rows, write_log

HOURS = {"event_hour": "hour", "event_weekday": "weekday"}
TIMES = [
    # (seconds, hours ahead of UTC, hour, weekday)
    (0, 0, 0, 3),  # Thursday, 1 January 1970
    (-1, 0, 23, 2),  # the second before
    (-86_400 * 3, 0, 0, 0),  # Monday, 29 December 1969
    (-86_400 * 3 - 1, 0, 23, 6),
    (-11_676_096_000, 0, 0, 5),  # Saturday, 1 January 1600
    (1_700_000_000, 0, 22, 1),  # Tuesday, 14 November 2023, 22:13:20
    (1_700_000_000, 8, 6, 2),
    (1_700_000_000, -23 / 2, 10, 1),
    (1_700_000_000, 5.75, 3, 2),
    (32_503_679_999, 0, 23, 1),  # Tuesday, 31 December 2999, the last second
]


@pytest.mark.parametrize(("seconds", "offset", "hour", "weekday"), TIMES)
def test_parts_of_a_time(seconds, offset, hour, weekday):
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds, hours=offset)
    assert (moment.hour, moment.weekday()) == (hour, weekday)
    for more in (0, 999_999):
        parts = [
            statements.time_part(part, f"CAST({seconds * 1_000_000 + more} AS BIGINT)", offset)
            for part in ("hour", "weekday")
        ]
        assert duckdb.execute(f"SELECT {', '.join(parts)}").fetchone() == (hour, weekday)


def test_spark_has_all_of_the_functions():
    assert respelled(f"SELECT {statements.time_part('hour', 'e.t', 1)} AS h FROM e") == (
        "SELECT CAST(FLOOR((((e.t + 3600000000) % 86400000000 + 86400000000) % 86400000000) / "
        "3600000000.0) AS BIGINT) AS h FROM e"
    )


def timed(make=schema_dict, **build) -> dict:
    """A schema with the hour as text, the weekday as a whole number and the hours of clicks."""
    values = make(time_columns=HOURS, utc_offset=2, **build)
    values["tables"] |= {
        "hour": {"vocabulary": []},
        "weekday": {"dtype": "int64", "vocabulary": []},
    }
    values["features"] += [
        {"name": "event_hour", "type": "categorical", "side": "context", "table": "hour"},
        {
            "name": "day",
            "column": "event_weekday",
            "type": "categorical",
            "side": "context",
            "table": "weekday",
        },
    ]
    values["sequences"][1]["fields"].append({"name": "clicks_hour", "type": "numeric"})
    values["build"]["sequences"]["clicks"]["fields"]["clicks_hour"] = "event_hour"
    return values


@pytest.mark.parametrize("make", [schema_dict, negatives_dict])
def test_features_and_fields_take_them(tmp_path, make):
    log, items, users = random_log()
    # Hours are known by the device, which is a column of the events.
    for place, event in enumerate(log):
        event["device"] = place
    schema = timed(make, duplicates="keep")
    out = tmp_path / "out"
    prepare_events(**write_log(tmp_path, schema, (log, items, users)), out=out, workers=1)
    seen = set()
    for split in ("train", "valid", "test"):
        for row in stored_rows(out, split):
            event = log[row["device"][0]]
            moment = datetime.datetime.fromtimestamp(event["time"] + 7200, datetime.UTC)
            assert row["event_hour"] == [str(moment.hour)]
            assert row["day"] == [moment.weekday()]
            assert len(row["clicks_hour"]) == len(row["clicks_item"])
            # Ages in hours are whole in this log.
            assert row["clicks_hour"] == [
                (moment.hour - round(age)) % 24 for age in row["clicks_age"]
            ]
            seen.add(moment.hour)
    assert len(seen) == 24
    assert set(Schema.load(out).table("hour").vocabulary) <= {str(hour) for hour in range(24)}


HAVE = ("user_id", "item_id", "time", "kind", "rating", "device", "affinity")
MISTAKES = [
    (
        {},
        (*HAVE, "event_hour"),
        "time_columns: --events has a column 'event_hour' already; give the",
    ),
    ({"utc_offset": 15}, HAVE, "build: utc_offset is 15; give 14 or less"),
    (
        {"time_columns": {"event_hour": "minute"}},
        HAVE,
        "time_columns.event_hour is 'minute'; choose 'hour' or 'weekday'",
    ),
    (
        {"time_columns": {**HOURS, "other": "hour"}},
        HAVE,
        "build: time_columns: 'other' is not the column of a feature or field; drop it",
    ),
]


@pytest.mark.parametrize(("build", "columns", "words"), MISTAKES)
def test_a_mistake_is_one_line(build, columns, words):
    values = timed()
    section = {**values.pop("build"), **build}
    schema = Schema.from_dict(values)
    have = {"events": columns, "items": ("item_id", "price", "tags")}
    have["users"] = ("user_id", "age", "city")
    with pytest.raises(UsageError) as error:
        make_plan(schema, read_rules(section, schema), have)
    assert words in str(error.value)
