"""What preparation refuses or says about a log: nothing is lost, matched to nothing or met by nothing in
silence."""

import json
import signal
import subprocess
import sys
import time

import pytest
import yaml

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.prepare import prepare_events
from tests.prepare.logs import START

SCHEMA = {
    "version": 1,
    "label": "label",
    "group": "user",
    "tables": {"item": {"vocabulary": []}},
    "features": [
        {"name": "item", "type": "categorical", "side": "item", "table": "item"},
    ],
    "sequences": [
        {
            "name": "past",
            "max_length": 5,
            "fields": [{"name": "past_item", "type": "categorical", "table": "item"}],
        }
    ],
}
BUILD = {
    "user": "user",
    "item": "item",
    "time": "time",
    "label": {"column": "rating", "values": [5]},
    "sequences": {"past": {"fields": {"past_item": "item"}}},
    "split": {"by": "time", "valid": 0.2, "test": 0.2},
}
TAGS = {
    "name": "tags",
    "type": "multi_categorical",
    "side": "item",
    "table": "tag",
    "max_values": 2,
}


def lines(count=100, **columns) -> list[dict]:
    """Events; each column is a value or a function of the place."""
    defaults = {
        "user": lambda n: n % 7,
        "item": lambda n: 100 + n % 9,
        "time": lambda n: START + 60 * n,
        "rating": lambda n: f"{1 + n % 5}.0",
    }
    columns = {**defaults, **columns}
    return [
        {name: each(n) if callable(each) else each for name, each in columns.items()}
        for n in range(count)
    ]


def write_csv(path, rows) -> str:
    text = [",".join(rows[0])] + [",".join(map(str, row.values())) for row in rows]
    path.write_text("\n".join(text) + "\n")
    return str(path)


def schema_with(features=(), build=None) -> dict:
    """SCHEMA with further features, of the table tag, and BUILD with other entries."""
    tables = {**SCHEMA["tables"], **({"tag": {"vocabulary": []}} if features else {})}
    features = [*SCHEMA["features"], *features]
    return {**SCHEMA, "tables": tables, "features": features, "build": {**BUILD, **(build or {})}}


def run(folder, events, *, build=None, features=(), items=None, **options):
    """(stats, lines said) of ``prepare_events``."""
    (folder / "schema.yaml").write_text(yaml.safe_dump(schema_with(features, build)))
    said = []
    stats = prepare_events(
        folder / "schema.yaml",
        write_csv(folder / "events.csv", events),
        folder / "out",
        items=None if items is None else write_csv(folder / "items.csv", items),
        say=said.append,
        workers=1,
        **options,
    )
    return stats, said


def test_a_value_has_one_spelling_in_data_and_rules(tmp_path):
    stats, said = run(tmp_path, lines())
    assert sum(stats["clicks"].values()) == 20
    assert said == stats["warnings"] == []


def test_a_condition_that_nothing_meets_shows_what_the_column_holds(tmp_path):
    build = {"label": {"column": "rating", "values": [6]}}
    with pytest.raises(
        UsageError, match=r"build: label: none of 100 events has rating in \[6\]; .*'1' \(20\)"
    ):
        run(tmp_path, lines(), build=build)
    build = {
        "sequences": {
            "past": {**BUILD["sequences"]["past"], "where": {"column": "rating", "at_least": 9}}
        }
    }
    with pytest.raises(UsageError, match=r"'past': where: none of 100 events has rating >= 9"):
        run(tmp_path, lines(), build=build)
    with pytest.raises(UsageError, match="build: rows: none of 100 events"):
        run(tmp_path, lines(), build={"rows": {"column": "rating", "values": ["x"]}})
    assert not (tmp_path / "out").exists()


def test_a_condition_that_everything_meets_is_told(tmp_path):
    build = {"label": {"column": "rating", "at_least": 1}}
    _, said = run(tmp_path, lines(), build=build)
    assert said[0].startswith("build: label: all 100 events have rating >= 1; it holds '1.0' (20)")
    assert said[1].startswith("train has no negative row among 60")


def test_a_split_without_positives_is_told(tmp_path):
    events = lines(rating=lambda n: 5 if n < 50 and n % 2 else 1)
    _, said = run(tmp_path, events)
    assert [line.split(":")[0] for line in said] == [
        "valid has no positive row among 20",
        "test has no positive row among 20",
    ]


def test_a_join_is_told_by_its_share_with_examples(tmp_path):
    items = [{"item": f"{100 + n}.0", "tags": "red"} for n in range(8)] + [{"item": 7, "tags": ""}]
    stats, said = run(
        tmp_path,
        lines(),
        items=items,
        features=[TAGS],
        build={"columns": {"tags": {"separator": "|"}}},
    )
    assert stats["items_without_row"] == 1
    assert stats["items_events_without_row"] == 11
    assert said == [
        "11 of 100 events (11.0%) have a value of item without a row in --items, 1 of 9 values: "
        "'108' in the events, '7' only in the table"
    ]


def test_a_join_that_finds_nothing_is_an_error(tmp_path):
    items = [{"item": f"x{100 + n}", "tags": "red"} for n in range(9)]
    with pytest.raises(UsageError, match=r"100 of 100 events \(100.0%\) have a value of item"):
        run(
            tmp_path,
            lines(),
            items=items,
            features=[TAGS],
            build={"columns": {"tags": {"separator": "|"}}},
        )


def test_times_long_ago_among_others_are_told(tmp_path):
    events = lines(time=lambda n: (START + 60 * n) * (1 if n % 2 else 1000))
    _, said = run(tmp_path, events, build={"time_unit": "ms"})
    assert said[0].startswith("50 of 100 events are before 1990 (the first 1970-01-20")


def test_an_id_of_many_events_is_told(tmp_path):
    _, said = run(tmp_path, lines(user=lambda n: "guest" if n % 3 else n))
    assert said[0].startswith("user is 'guest' in 66% of the events; is that one user")


def test_a_column_that_older_files_lack_is_missing_there(tmp_path):
    feature = {"name": "coupon", "type": "categorical", "side": "context", "table": "tag"}
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(schema_with([feature])))
    paths = [
        write_csv(tmp_path / "1.csv", lines()),
        write_csv(tmp_path / "2.csv", lines(time=lambda n: START + 90_000 + n, coupon="c")),
    ]
    said = []
    prepare_events(tmp_path / "schema.yaml", paths, tmp_path / "out", say=said.append, workers=1)
    assert said[0].startswith(
        "--events: column 'coupon' is in 1 of 2 files; its values are missing"
    )
    assert (tmp_path / "out/vocab/tag.txt").read_text() == "c\n"


def test_a_long_list_names_its_row_or_is_cut(tmp_path):
    events = lines(tags=lambda n: "a|b|c" if n == 41 else "a")
    build = {"columns": {"tags": {"separator": "|"}}}
    with pytest.raises(
        UsageError, match=r"has up to 3 values in a cell \('.*events.csv', row 42\)"
    ):
        run(tmp_path, events, features=[TAGS], build=build)
    run(tmp_path, events, features=[{**TAGS, "truncate": "first"}], build=build)
    assert (tmp_path / "out/vocab/tag.txt").read_text().split() == ["a", "b"]


def test_bad_lines_and_rows_are_counted_and_listed(tmp_path):
    events = lines()
    events[3]["time"], events[7]["item"], events[9]["user"] = "yesterday", "NA", "1,2"
    with pytest.raises(UsageError, match=r"events.csv', line 11: wrong number of fields"):
        run(tmp_path, events)
    stats, _ = run(tmp_path, events, skip_bad=True)
    assert stats["events"] == {"read": 100, "used": 97, "bad": 3, "duplicates": 0}
    assert sum(stats["rejected"].values()) == 3
    listed = (tmp_path / "out/rejected.csv").read_text().splitlines()
    assert len(listed) == 4
    assert any(",4,time," in line for line in listed)


def test_duplicates_are_refused_skipped_or_kept(tmp_path):
    events = lines() + lines()[5:8]
    with pytest.raises(UsageError, match=r"row 101: duplicate event, 'user 5'"):
        run(tmp_path, events)
    stats, _ = run(tmp_path, events, skip_bad=True)
    assert stats["events"] == {"read": 103, "used": 100, "bad": 0, "duplicates": 3}


def test_killed_preparation_leaves_nothing_that_looks_complete(tmp_path):
    """SIGKILL while events are marked: no folder of the name, and no orphaned worker."""
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(schema_with()))
    path = write_csv(tmp_path / "events.csv", lines(60_000, user=lambda n: n % 5000))
    code = (
        "import os, time, loopctr_tf.prepare.engine as engine\n"
        # One write, so that the lines of two workers cannot mix.
        "def slow(events, job):\n    os.write(1, b'marking\\n')\n    time.sleep(60)\n"
        "engine.mark = slow\n"
        "from loopctr_tf.prepare.prepare import prepare_events\n"
        f"prepare_events('schema.yaml', {path!r}, 'out', workers=2)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout.readline() == "marking\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists()
    deadline = time.monotonic() + 20
    # The pipe closes when the last worker is gone.
    assert process.stdout.read() in ("", "marking\n")
    assert time.monotonic() < deadline


def test_stats_hold_what_was_said(tmp_path):
    _, said = run(tmp_path, lines(user=lambda n: "guest" if n % 3 else n))
    assert json.loads((tmp_path / "out/stats.json").read_text())["warnings"] == said
