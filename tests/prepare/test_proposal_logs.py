"""Proposed schemas for logs as people have them: leaks, missing words, times, lists, names, files."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from loopctr_tf.cli import cli
from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.files import TextOptions
from tests.prepare.test_proposal import described, proposed, save

ROWS, USERS, ITEMS, START = 1200, 30, 20, 1_700_000_000
RANDOM = np.random.default_rng(0)
CLICK = RANDOM.random(ROWS) < 0.3


def log(**more) -> dict:
    """Columns of impressions with clicks that nothing explains, and others."""
    rng = np.random.default_rng(7)
    base = {
        "user_id": rng.integers(USERS, size=ROWS),
        "item_id": rng.integers(ITEMS, size=ROWS),
        "timestamp": START + 60 * np.arange(ROWS),
        "click": CLICK.astype(int),
    }
    return {**base, **more}


def changed(columns: dict, **renamed) -> dict:
    """``columns`` under other names."""
    return {renamed.get(name, name): values for name, values in columns.items()}


def flat(text: str) -> str:
    """The text without line breaks and comment signs."""
    return " ".join(text.replace("#", "").split())


def left_out(text: str) -> dict[str, str]:
    """Column -> why it is no feature."""
    lines = (
        text[text.index("# Left out:") : text.index("\nsequences:")]
        if "# Left out:" in text
        else ""
    )
    lines = lines.replace("\n#   ", " ").splitlines()[1:]
    return dict(line.removeprefix("# - ").split(": ", 1) for line in lines)


# Columns that are the answer.


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (1 - CLICK, "AUC 1.00"),
        (np.where(CLICK, 30_000, 900) + np.arange(ROWS) % 700, "AUC 1.00"),
        (np.where(CLICK, "page", "list"), "AUC 1.00"),
        ([float(c) if c else None for c in CLICK * (1 + np.arange(ROWS) % 7)], "AUC 1.00"),
        (np.where(CLICK & (np.arange(ROWS) % 3 == 0), 1, 0), "rows that have it are positive"),
        (np.where(~CLICK & (np.arange(ROWS) % 2 == 0), 1, 0), "rows that have it are negative"),
    ],
    ids=[
        "complement",
        "seconds",
        "pages",
        "missing without a click",
        "only clicked",
        "only skipped",
    ],
)
def test_a_column_that_tells_the_label_is_left_out_whatever_its_name(tmp_path, values, why):
    noise = np.random.default_rng(1).integers(5, size=ROWS)
    text, _, schema = proposed(save(tmp_path / "e.csv", log(slot=noise, extra=values)))
    assert why in left_out(text)["extra"]
    assert set(described(schema)) == {"item_id", "slot"}


def test_a_good_feature_stays_and_is_told_of(tmp_path):
    flipped = np.random.default_rng(1).random(ROWS) < 0.05
    text, _, schema = proposed(
        save(tmp_path / "e.csv", log(hint=np.where(flipped, ~CLICK, CLICK).astype(int)))
    )
    assert "hint" in described(schema)
    assert "predicts the label by itself (AUC 0.9" in flat(text)


def test_names_that_suggest_results(tmp_path):
    rng, item = np.random.default_rng(2), log()["item_id"]
    names = (
        "play_time_ms",
        "watch_time",
        "read_time",
        "dwell",
        "next_item",
        "profile_stay_time",
        "revenue",
    )
    columns = {
        name: rng.integers(500, size=ROWS) for name in (*names, "nonclk", "conversion_value")
    }
    columns |= {name: rng.integers(2, size=ROWS) for name in ("is_follow", "long_view")}
    kept = {
        "watch_length": 7 * item,
        "video_play_time": 11 * item,
        "duration_ms": rng.integers(900, size=ROWS),
    }
    text, _, schema = proposed(save(tmp_path / "e.csv", log(**columns, **kept)))
    assert set(left_out(text)) == {*columns}
    assert described(schema)["video_play_time"] == ("categorical", "item", "video_play_time")
    assert set(described(schema)) == {"item_id", *kept}


def test_users_who_always_click_are_no_leak(tmp_path):
    user = log()["user_id"]
    columns = log(click=(user % 3 == 0).astype(int), device=np.where(user % 3 == 0, "ios", "web"))
    text, _, schema = proposed(save(tmp_path / "e.csv", columns))
    assert described(schema)["device"] == ("categorical", "user", "device")
    assert "NOTE: predicts the label by itself (AUC 1.00)" in " ".join(
        text.replace("#", "").split()
    )


# Labels.


@pytest.mark.parametrize(
    ("column", "rule", "share"),
    [
        ({"rating": ["4.0", "5.0"] * 600}, {"column": "rating", "at_least": 4.0}, None),
        ({"clicked": ["yes", "no", "no"] * 400}, {"column": "clicked", "values": ["yes"]}, "33.3%"),
        ({"label": [1, -1, -1] * 400}, {"column": "label", "values": ["1"]}, "33.3%"),
        ({"event": ["PV", "Buy"] * 600}, {"column": "event", "values": ["Buy"]}, "50.0%"),
    ],
    ids=["ratings that are all good", "yes", "-1", "capitals"],
)
def test_label_rules_split_the_events_and_spell_values_as_the_column_does(
    tmp_path, column, rule, share
):
    columns = {name: values for name, values in log(**column).items() if name != "click"}
    text, values, _ = proposed(save(tmp_path / "e.csv", columns))
    if share is None:  # A threshold of 4 would make every event a positive.
        assert values["build"]["label"]["at_least"] > 4
        share = "50.0%"
    else:
        assert values["build"]["label"] == rule
    assert f"{share} of the events are positive" in text


def test_a_label_that_never_occurs_is_told_of(tmp_path):
    text, values, _ = proposed(save(tmp_path / "e.csv", log(click=[0] * ROWS)))
    assert "negatives" in values["build"]
    assert "click is always '0' in the sample" in flat(text)


# Missing values.


@pytest.mark.parametrize("word", ["NA", "\\N", "NULL", "None", "nan", "NaN", "", " n/a "])
def test_words_for_missing_are_missing(tmp_path, word):
    third = np.arange(ROWS) % 3 == 0
    columns = log()
    columns["user_id"] = np.where(third, word, columns["user_id"])
    columns["price"] = np.where(third, word, (columns["item_id"] * 0.5).astype(str))
    columns["city"] = np.where(third, word, "Lima")
    text, values, schema = proposed(save(tmp_path / "e.csv", columns))
    assert values["build"]["user"] == "user_id"
    assert "missing in 400 rows" in text
    assert described(schema)["price"][0] == "numeric"
    assert "city" in described(schema)  # Either known or not.
    assert text.count("400 missing (33%)") == 2


def test_an_id_with_a_large_share_of_the_events_is_told_of(tmp_path):
    columns = log()
    columns["user_id"] = np.where(np.arange(ROWS) % 4 == 0, "anonymous", columns["user_id"])
    text, _, _ = proposed(save(tmp_path / "e.csv", columns))
    assert "25% of the events have 'anonymous': is that one user?" in " ".join(
        text.replace("#", "").split()
    )


# Times.


def compact(form: str) -> list[str]:
    times = START + 1800 * np.arange(ROWS)
    return [np.datetime64(int(t), "s").item().strftime(form) for t in times]


@pytest.mark.parametrize("name", ["timestamp", "date", "hour"])
@pytest.mark.parametrize(
    "form", ["%Y%m%d", "%Y%m%d%H", "%Y%m%d%H%M%S", "%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]
)
def test_dates_written_as_numbers_are_dates(tmp_path, name, form):
    text, values, schema = proposed(
        save(tmp_path / "e.csv", changed(log(timestamp=compact(form)), timestamp=name))
    )
    assert values["build"]["time"] == name
    assert "time_unit" not in values["build"]
    assert f"time: {name}  # dates" in text
    assert "history_hours" in {f.name for f in schema.all_fields()}


@pytest.mark.parametrize(
    ("form", "like"),
    [
        ("%m/%d/%Y %I:%M:%S %p", "MM/DD/YYYY"),
        ("%d.%m.%Y", "DD.MM.YYYY"),
        ("%Y/%m/%d", "YYYY/MM/DD"),
        ("%y%m%d%H", "YYMMDDHH"),
        ("%Y%m%d%H%M", "YYYYMMDDHHMM"),
    ],
)
def test_dates_in_other_formats_are_refused_with_what_to_write(tmp_path, form, like):
    times = compact(form)
    with pytest.raises(UsageError) as raised:
        proposed(save(tmp_path / "e.csv", log(timestamp=times)))
    assert f"timestamp holds '{times[0]}', which looks like {like}; write ISO dates" in str(
        raised.value
    )


def test_one_odd_time_does_not_hide_the_others(tmp_path):
    times = [0, *log()["timestamp"][1:]]
    text, values, _ = proposed(save(tmp_path / "e.csv", log(timestamp=times)))
    assert values["build"]["time"] == "timestamp"
    assert "NOTE: others like '0': 1 of 1,200" in text


def test_seconds_among_milliseconds(tmp_path):
    times = log()["timestamp"]
    times = np.where(np.arange(ROWS) % 4 == 0, times, times * 1000)
    text, values, _ = proposed(save(tmp_path / "e.csv", log(timestamp=times)))
    assert values["build"]["time_unit"] == "ms"
    assert "NOTE: others in s: 300 of 1,200" in text


def test_fractions_with_nan_are_numbers_and_no_times(tmp_path):
    score = [f"{r % 97 / 97:.3f}" if r % 50 else "nan" for r in range(ROWS)]
    text, _, schema = proposed(save(tmp_path / "e.csv", log(score=score)))
    assert described(schema)["score"] == ("numeric", "context", None)
    assert "24 missing (2%)" in text
    assert "score" not in text[text.index("build:") :]


# Lists.


@pytest.mark.parametrize(
    ("write", "separator"),
    [
        (lambda tags: "|".join(tags), "|"),
        (lambda tags: f"[{', '.join(tags)}]", None),
        (lambda tags: str(list(tags)), None),
        (lambda tags: json.dumps(list(tags)), None),
    ],
    ids=["bars", "numbers", "repr", "json"],
)
def test_lists_have_room_for_nearly_all_of_them(tmp_path, write, separator):
    tags = [[str(n % 9) for n in range(r, r + 1 + r % 10)] for r in range(ROWS)]
    tags[5] = [str(n % 9) for n in range(5000)]
    tags[6] = []
    text, values, schema = proposed(save(tmp_path / "e.csv", log(tags=[write(t) for t in tags])))
    (feature,) = [f for f in schema.features if f.name == "tags"]
    assert (feature.type, feature.max_values, feature.truncate) == (
        "multi_categorical",
        10,
        "first",
    )
    assert "the longest 5,000" in flat(text)
    assert "1 missing (0%)" in text
    assert schema.table("tags").dtype == "int64"
    assert values["build"].get("columns") == (separator and {"tags": {"separator": separator}})


def test_numbers_with_commas_are_told_of(tmp_path):
    prices = [f"{1000 + r % 40:,}.00" for r in range(ROWS)]
    text, _, schema = proposed(
        save(tmp_path / "e.csv", log(price=prices, cost=[f"{r % 60},5" for r in range(ROWS)]))
    )
    assert described(schema)["price"][0] == described(schema)["cost"][0] == "categorical"
    assert flat(text).count("looks like numbers with commas: write 1234.00") == 2


# Files and names.


def test_a_small_sample(tmp_path):
    columns = {name: list(values[:12]) for name, values in log().items()}
    columns["user_id"] = [f"u{n}" for n in range(12)]
    text, values, _ = proposed(save(tmp_path / "e.csv", columns))
    assert (values["build"]["user"], values["build"]["item"]) == ("user_id", "item_id")
    assert "a different one in every row" in flat(text)


def test_a_missing_header(tmp_path):
    path = save(tmp_path / "e.csv", log())
    path.write_text(path.read_text().split("\n", 1)[1])
    with pytest.raises(UsageError, match="a header seems to be missing; name the columns"):
        proposed(path)
    names = ("user_id", "item_id", "timestamp", "click")
    _, values, _ = proposed(path, options=TextOptions(names=names, header=False))
    assert values["label"] == "click"
    result = CliRunner().invoke(
        cli,
        [
            "schema",
            "init",
            str(path),
            "--no-header",
            "--names",
            ",".join(names),
            "--out",
            str(tmp_path / "s"),
        ],
    )
    assert result.exit_code == 0, result.output
    assert f"--events {path} --no-header --names {','.join(names)} --out prepared" in result.output


def test_json_lines(tmp_path):
    columns = {name: np.asarray(values).tolist() for name, values in log().items()}
    rows = [
        dict(zip(columns, row, strict=True)) | {"tags": ["a", "b"]}
        for row in zip(*columns.values(), strict=True)
    ]
    path = tmp_path / "e.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    _, values, schema = proposed(path)
    assert values["label"] == "click"
    assert described(schema)["tags"][0] == "multi_categorical"


@pytest.mark.parametrize(
    ("names", "feature"),
    [
        (("user-id", "item-id", "event time", "is click"), "item_id"),
        (("user_id:token", "item_id:token", "timestamp:float", "label:float"), "item_id"),
        (("用户", "商品", "时间", "点击"), "item"),
    ],
    ids=["dashes", "RecBole", "Chinese"],
)
def test_names_that_no_input_can_have(tmp_path, names, feature):
    columns = dict(zip(names, log().values(), strict=True)) | {
        "class": np.arange(ROWS) % 7,
        "2nd": np.arange(ROWS) % 5,
    }
    _, values, schema = proposed(save(tmp_path / "e.csv", columns))
    build = values["build"]
    assert (build["user"], build["item"], build["time"]) == names[:3]
    assert {f.name: f.column for f in schema.features} == {
        feature: names[1],
        "class_": "class",
        "feature_2nd": "2nd",
    }
    assert build["label"] == {"column": names[3], "values": ["1"]}
    assert build["sequences"]["history"]["fields"][f"history_{feature}"] == names[1]
    assert build["sequences"]["history"]["where"]["column"] == schema.label


def test_names_that_queries_use_are_columns_as_others_are(tmp_path):
    names = (
        "rowid",
        "place",
        "fold",
        "y",
        "v",
        "n",
        "c",
        "p",
        "g",
        "part",
        "sample",
        "is_positive",
    )
    rng = np.random.default_rng(5)
    columns = log(**{name: rng.integers(4, size=ROWS) for name in names})
    _, _, schema = proposed(save(tmp_path / "e.csv", columns), rows=1000)
    assert set(described(schema)) == {"item_id", *names} - {"rowid"}  # Left out by its name.


def test_names_that_the_proposal_makes_up_are_others(tmp_path):
    history = np.arange(ROWS) % 60
    _, values, schema = proposed(
        save(tmp_path / "e.csv", log(history_length=history, past_hours=history))
    )
    assert [s.name for s in schema.sequences] == ["earlier"]
    assert {"history_length", "past_hours"} <= set(described(schema))
    assert "earlier" in values["build"]["sequences"]


def test_columns_of_later_files(tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    columns = log(coupon=["c1", "c2", "c3"] * 400)
    save(logs / "b.csv", columns)
    save(logs / "a.csv", {name: values for name, values in columns.items() if name != "coupon"})
    text, _, schema = proposed(logs, rows=2000)
    assert "coupon" in described(schema)
    assert "1,000 missing (50%), absent from 1 of 2 files" in flat(text)
    assert "from 2,000 rows of the events, the first of each file" in text


def test_many_files_are_looked_at_here_and_there(tmp_path):
    columns = log()
    for part in range(60):
        rows = {name: values[20 * part : 20 * part + 20] for name, values in columns.items()}
        save(tmp_path / f"{part:02}.csv", rows | ({"late": [1, 2] * 10} if part == 30 else {}))
    text, _, schema = proposed(tmp_path)
    assert "late" in described(schema)
    assert "rows of the events, the first of each file" in text


def test_what_was_nearly_taken(tmp_path):
    columns = log(visitor_kind=np.arange(ROWS) % 9, user_tags=["a|b", "b|c|a"] * 600)
    columns["item_type"] = np.arange(ROWS) % 4
    columns["update_time"] = ["later", "never"] * 600
    columns["created_at"] = START - 1000 * (np.arange(ROWS) % 50)
    text, _, _ = proposed(save(tmp_path / "e.csv", columns))
    build = flat(text[text.index("build:") :])
    assert (
        "nearly user_tags, but it holds lists; nearly visitor_kind, but its name is less" in build
    )
    assert "nearly item_type, but its name is less like an id" in build
    assert "nearly update_time, but its values are not times; nearly created_at, but it" in build


def test_events_without_users_are_refused_with_the_reason(tmp_path):
    columns = {
        "click": [0, 1] * 20,
        "I1": range(40),
        "C1": ["x", "y"] * 20,
        "user_score": [0.5, 0.25] * 20,
    }
    with pytest.raises(
        UsageError, match=r"user_score is named so, but it holds fractions.*users' histories"
    ):
        proposed(save(tmp_path / "e.csv", columns))


def test_a_long_history_is_proposed_by_the_events_in_it(tmp_path):
    columns = log(user_id=np.arange(ROWS) % 10)  # 120 events of each user, 36 of them clicks
    _, _, schema = proposed(save(tmp_path / "e.csv", columns))
    assert [s.name for s in schema.sequences] == ["history"]
    clicks = np.arange(ROWS) % 3 > 0
    columns["click"] = clicks[np.random.default_rng(3).permutation(ROWS)].astype(int)
    _, _, schema = proposed(save(tmp_path / "more.csv", columns))
    assert [s.name for s in schema.sequences] == ["history", "older_history"]
