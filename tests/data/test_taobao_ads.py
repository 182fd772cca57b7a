"""The recipe of Taobao's ads on tiny files in both publishers' layouts."""

import json
import random
import sys

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from recipes import load_script

import loopctr_tf as lc
from tests.prepare.logs import stored_rows

recipe = load_script("taobao_ads")
raw_files, x1_files = recipe.taobao_raw, recipe.taobao_x1
histories = sys.modules["taobao_histories"]

FIRST_DAY, DAY = 1_494_000_000, 86_400


def write(folder, name, header, rows):
    folder.mkdir(exist_ok=True)
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    (folder / name).write_text("\n".join(lines) + "\n")


def prepared(raw, out="out", **settings):
    said = []
    settings = {"min_count": 1, "workers": 1, "warn": said.append, **settings}
    stats = recipe.prepare(raw, raw.parent / out, **settings)
    return raw.parent / out, stats, said


# The publisher's own files.

ADS = [(70, 1, 100, 5, 9, 12.5), (71, 2, 101, 6, "NULL", 170.0), (72, 1, 102, 5, 8, 3)]
USERS = [(10, 0, 5, 2, 5, "", 3, 0, 3), (11, 1, 4, 1, 2, 2, 3, 0, ""), (12, 0, 5, 2, 5, 1, 1, 1, 2)]
TAGS = ("pv", "cart", "fav", "buy")


def write_raw(folder, impressions, log):
    write(folder, "raw_sample.csv", "user,time_stamp,adgroup_id,pid,nonclk,clk", impressions)
    header = "adgroup_id,cate_id,campaign_id,customer,brand,price"
    write(folder, "ad_feature.csv", header, ADS)
    # The last column has a space behind its name.
    header = "userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,"
    write(
        folder,
        "user_profile.csv",
        f"{header}shopping_level,occupation,new_user_class_level ",
        USERS,
    )
    write(folder, "behavior_log.csv", "user,time_stamp,btag,cate,brand", log)
    return folder


def impression(user, day, second, ad=70, clk=0, pid="430548_1007"):
    return user, FIRST_DAY + day * DAY + second, ad, pid, 1 - clk, clk


def behavior(user, day, second, cate, brand=3, tag="pv"):
    return user, FIRST_DAY + day * DAY + second, tag, cate, brand


@pytest.fixture
def raw(tmp_path):
    """User 10 on all days, 11 once, 13 without a profile and without a past; 99 in the log alone."""
    impressions = [
        impression(10, 7, 0, ad=71, clk=1),
        impression(13, 0, 50),
        impression(10, 0, 100, ad=72),
        impression(10, 6, 0, clk=1),
        impression(11, 5, 10, ad=99),
    ]
    log = [
        behavior(99, 0, 0, 1),
        behavior(10, 0, 100, 22),  # In the second of an impression.
        behavior(10, -9, 0, 21, brand=9, tag="buy"),
        behavior(10, 7, 0, 24),
        behavior(11, 6, 0, 25),  # After the only impression.
        behavior(10, 6, 5, 23, brand="", tag="cart"),
    ]
    return write_raw(tmp_path / "raw", impressions, log)


def test_histories_are_of_earlier_behaviors_and_oldest_first(raw):
    out, stats, _ = prepared(raw)
    (test,) = stored_rows(out, "test")
    assert test["userid"] == ["10"]
    assert test["cate_his"] == ["21", "22", "23"]
    assert test["brand_his"] == ["9", "3", ""]
    assert test["btag_his"] == ["buy", "pv", "cart"]
    (valid,) = stored_rows(out, "valid")
    assert valid["cate_his"] == ["21", "22"]
    past = {row["userid"][0]: row["cate_his"] for row in stored_rows(out, "train")}
    assert past == {"10": ["21"], "11": [], "13": []}
    assert stats["rows"] == {"train": 3, "valid": 1, "test": 1}
    assert stats["users"] == 3
    assert stats["behaviors_in_a_history"] == 3


def test_ads_and_users_are_joined_and_may_be_missing(raw):
    out, _, _ = prepared(raw)
    (test,) = stored_rows(out, "test")
    expected = {
        "clk": [1],
        "adgroup_id": ["71"],
        "cate_id": ["2"],
        "campaign_id": ["101"],
        "customer": ["6"],
        "brand": [""],
        "price": [170.0],
        "pid": ["430548_1007"],
        "pvalue_level": [""],
        "new_user_class_level": ["3"],
        "cms_group_id": ["5"],
    }
    assert {name: test[name] for name in expected} == expected
    rows = {row["userid"][0]: row for row in stored_rows(out, "train")}
    assert rows["13"]["cms_segid"] == [""]
    assert rows["11"]["new_user_class_level"] == [""]
    assert rows["11"]["adgroup_id"] == ["99"]
    assert rows["11"]["brand"] == [""]
    # A missing price is the mean of the others, of which log1p is taken.
    default = np.expm1(np.log1p([12.5, 3.0]).mean())
    assert rows["11"]["price"] == pytest.approx([default])
    schema = lc.Schema.load(out)
    assert "NULL" not in schema.table("brand").vocabulary
    assert "btag" not in [feature.name for feature in schema.features]


def test_protocols_and_row_counts_are_told(raw):
    out, stats, said = prepared(raw)
    assert stats["protocol"] == "honest"
    assert stats["validation"] == "the day before the last"
    assert stats["row_counts"]["behavior_log.csv"] == {"found": 6, "published": 723_268_134}
    assert len(said) == 4
    assert "raw_sample.csv' gave 5 rows and its publisher's has 26,557,961;" in said[0]
    assert json.loads((out / "stats.json").read_text()) == stats
    out, stats, _ = prepared(raw, "bars", protocol="bars")
    assert stats["protocol"] == "bars"
    assert stats["rows"] == {"train": 4, "valid": 1, "test": 1}
    assert stored_rows(out, "valid") == stored_rows(out, "test")


def slow_history(log, user, time, most):
    """Places in ``log`` of the history, by search through all of it."""
    found = [place for place, row in enumerate(log) if row[0] == user and row[1] < time]
    return sorted(found, key=lambda place: (log[place][1], place))[-most:]


@pytest.mark.parametrize("parts", [1, 50])
def test_every_history_equals_a_slow_reference(tmp_path, parts, monkeypatch):
    """Many equal times, users with and without a past, parts with and without rows."""
    monkeypatch.setattr(sys.modules["taobao_partitions"], "_WAITING", 37)
    monkeypatch.setattr(histories, "_BATCH", 11)
    draw = random.Random(parts)
    shown = [(draw.randrange(20), draw.randrange(15), place) for place in range(150)]
    log = [(draw.randrange(25), draw.randrange(-5, 18), place) for place in range(400)]
    impressions = pa.table(
        {
            "user": [user for user, _, _ in shown],
            "time_stamp": [time for _, time, _ in shown],
            "adgroup_id": [place for _, _, place in shown],
            "pid": ["p"] * len(shown),
            "clk": pa.array([0] * len(shown), pa.int8()),
        }
    )
    events = pa.table(
        {
            "user": [user for user, _, _ in log],
            "time_stamp": [time for _, time, _ in log],
            "btag": [TAGS[place % 4] for _, _, place in log],
            "cate": [place for _, _, place in log],
            "brand": [None] * len(log),
        }
    )
    pieces = [impressions.slice(0, 70), impressions.slice(70)]
    made = histories.Histories(tmp_path, pieces, [events.slice(0, 9), events.slice(9)], 4, parts)
    seen, used = [], set()
    for first, end in ((-1, 5), (5, 12), (12, None)):
        for table in made.batches(first, end):
            for row in table.to_pylist():
                expected = slow_history(log, row["user"], row["time_stamp"], 4)
                assert row["cate"] == expected
                assert row["btag"] == [TAGS[place % 4] for place in expected]
                assert row["brand"] == [None] * len(expected)
                assert first <= row["time_stamp"] < (end or 99)
                seen.append(row["adgroup_id"])
                used |= set(expected)
    assert sorted(seen) == list(range(150))
    assert made.facts == {
        "impressions": 150,
        "users": len({user for user, _, _ in shown}),
        "behaviors": 400,
        "behaviors_in_a_history": len(used),
    }


# TaobaoAd_x1.

X1_HEADER = (
    "clk,btag_his,cate_his,brand_his,userid,cms_segid,cms_group_id,final_gender_code,age_level,"
    "pvalue_level,shopping_level,occupation,new_user_class_level,adgroup_id,cate_id,campaign_id,"
    "customer,brand,price,pid,btag"
)


def x1_row(user, ad, past, clk=0, brand_his=None):
    lists = ["^".join(["1"] * len(past)), "^".join(f"c{p}" for p in past)]
    lists.append("^".join(f"b{p}" for p in past) if brand_his is None else brand_his)
    profile = [0, 5, 2, 5, 0, 3, 0, 3]
    return [clk, *lists, user, *profile, ad, 4, 5, 6, 7, 0.25, "430548_1007", 1]


@pytest.fixture
def x1(tmp_path):
    folder = tmp_path / "raw"
    train = [x1_row(row % 5, 70 + row % 3, range(row % 4), row % 2) for row in range(20)]
    write(folder, "train.csv", X1_HEADER, train)
    test = [
        x1_row(1, 70, range(60), clk=1),
        x1_row(2, 99, []),
        # A brand is missing, and so its list is shorter than the others.
        x1_row('"3"', 71, [1, 2, 3], brand_his='"b1^b3"'),
    ]
    write(folder, "test.csv", X1_HEADER, test)
    return folder


def test_x1_brings_its_histories(x1):
    out, stats, said = prepared(x1)
    long, empty, short = stored_rows(out, "test")
    assert long["cate_his"] == [f"c{event}" for event in range(10, 60)]
    assert long["brand_his"] == [f"b{event}" for event in range(10, 60)]
    assert empty["cate_his"] == empty["btag_his"] == []
    assert short["userid"] == ["3"]
    assert short["cate_his"] == ["c1", "c2", "c3"]
    assert short["brand_his"] == ["", "b1", "b3"]
    assert short["btag_his"] == ["1", "1", "1"]
    assert long["btag"] == ["1"]
    assert long["price"] == [0.25]
    assert stats["rows"] == {"train": 18, "valid": 2, "test": 3}
    assert stats["protocol"] == "honest"
    assert stats["row_counts"]["train"] == {"found": 20, "published": 21_929_911}
    assert stats["row_counts"]["test"] == {"found": 3, "published": 3_099_515}
    assert len(said) == 2


def test_x1_by_the_rule_of_bars(x1):
    out, stats, _ = prepared(x1, protocol="bars", min_count=4)
    assert stats["rows"] == {"train": 20, "valid": 3, "test": 3}
    assert stats["protocol"] == "bars"
    # Padding at the front, and so cut at the front: the most recent 50.
    assert stored_rows(out, "valid")[0]["cate_his"][0] == "c10"
    # In 20 rows with 0 to 3 events c0 is there 15 times, c1 10 times and c2 5 times; "4" 20 times.
    assert lc.Schema.load(out).table("category").vocabulary == ("4", "c0", "c1", "c2")
    out, _, _ = prepared(x1, "rarer", protocol="bars", min_count=6)
    assert lc.Schema.load(out).table("category").vocabulary == ("4", "c0", "c1")


def test_the_command(x1):
    arguments = ["--raw", str(x1), "--out", str(x1.parent / "out"), "--workers", "1"]
    result = CliRunner().invoke(recipe.main, arguments)
    assert result.exit_code == 0
    assert "rows train 18, valid 2, test 3; protocol honest" in result.stdout
    assert "WARNING" in result.stderr
    for wrong in (arguments, ["--raw", str(x1.parent), *arguments[2:3], str(x1.parent / "new")]):
        again = CliRunner().invoke(recipe.main, wrong)
        assert again.exit_code == 2
        assert again.stderr.count("\n") == 1
        assert again.stderr.startswith("Error: ")
