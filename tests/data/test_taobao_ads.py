"""The recipe of Taobao's ads on tiny files in both publishers' layouts."""

import random

import numpy as np
import pytest
from click.testing import CliRunner
from recipes import load_script

import loopctr_tf as lc
from loopctr_tf.errors import UsageError
from tests.prepare.logs import stored_rows

recipe = load_script("taobao_ads")
FIRST_DAY, DAY = 1_494_000_000, 86_400


def write(folder, name, header, rows):
    folder.mkdir(exist_ok=True)
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    (folder / name).write_text("\n".join(lines) + "\n")


def prepared(raw, out="out", **settings):
    stats = recipe.prepare(raw, raw.parent / out, **{"min_count": 1, "workers": 1, **settings})
    return raw.parent / out, stats


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
    out, stats = prepared(raw)
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
    assert (stats["protocol"], stats["validation"]) == ("honest", "the day before the last")
    assert stats["row_counts"]["rows of behavior_log.csv"] == {"found": 6, "published": 723_268_134}
    assert "6 rows of behavior_log.csv were found, and the publisher's" in stats["warnings"][-1]


def test_ads_and_users_are_joined_and_may_be_missing(raw):
    out, _ = prepared(raw)
    (test,) = stored_rows(out, "test")
    assert test["clk"] == [1]
    ad = [test[name][0] for name in ("adgroup_id", "cate_id", "campaign_id", "customer", "brand")]
    assert ad == ["71", "2", "101", "6", ""]
    user = [
        test[name][0] for name in ("cms_group_id", "pvalue_level", "new_user_class_level", "pid")
    ]
    assert user == ["5", "", "3", "430548_1007"]
    assert test["price"] == [170.0]
    rows = {row["userid"][0]: row for row in stored_rows(out, "train")}
    assert rows["13"]["cms_segid"] == rows["11"]["new_user_class_level"] == [""]
    assert rows["11"]["adgroup_id"] == ["99"]
    assert rows["11"]["brand"] == [""]
    # A missing price is the mean of the others, of which log1p is taken.
    assert rows["11"]["price"] == pytest.approx([np.expm1(np.log1p([12.5, 3.0]).mean())])
    assert "btag" not in [feature.name for feature in lc.Schema.load(out).features]


def test_bars_validates_on_the_impressions_of_the_test_split(raw):
    out, stats = prepared(raw, protocol="bars")
    assert stats["protocol"] == "bars"
    assert stats["rows"] == {"train": 4, "valid": 1, "test": 1}
    assert stored_rows(out, "valid") == stored_rows(out, "test")


def test_bad_rows_are_left_out_and_counted(raw):
    with (raw / "behavior_log.csv").open("a") as file:
        file.write("10,soon,pv,1,1\n")
    with pytest.raises(UsageError, match=r"behavior_log\.csv', row 7, column 'time_stamp'"):
        prepared(raw)
    out, stats = prepared(raw, skip_bad=True)
    assert stats["rejected_lines"] == {"not a number": 1}
    assert "behavior_log.csv,7,time_stamp" in (out / "rejected_lines.csv").read_text()


@pytest.mark.parametrize("protocol", ["honest", "bars"])
def test_every_row_equals_a_slow_reference(tmp_path, protocol):
    """Many equal times, users without a past, and ads that tell which impression a row is."""
    draw = random.Random(2)

    def moment(first):
        return draw.randrange(20), draw.randrange(first, 8), 7200 * draw.randrange(12)

    shown = [impression(*moment(0), ad=ad, clk=ad % 2) for ad in range(150)]
    log = [behavior(*moment(-3), cate) for cate in range(1, 900)]
    out, _ = prepared(write_raw(tmp_path / "raw", shown, log), protocol=protocol)
    days = {"train": range(6), "valid": [6], "test": [7]}
    if protocol == "bars":
        days |= {"train": range(7), "valid": [7]}
    for split in days:
        expected = {}
        for user, time, ad, _, _, clk in shown:
            if (time - FIRST_DAY) // DAY in days[split]:
                past = [row for row in log if row[0] == user and row[1] < time]
                past.sort(key=lambda row: row[1])
                expected[str(ad)] = str(user), clk, [str(row[3]) for row in past[-50:]]
        found = {
            row["adgroup_id"][0]: (row["userid"][0], row["clk"][0], row["cate_his"])
            for row in stored_rows(out, split)
        }
        assert found == expected


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
    out, stats = prepared(x1)
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
    assert stats["row_counts"] == {
        "rows of train.csv": {"found": 20, "published": 21_929_911},
        "rows of test.csv": {"found": 3, "published": 3_099_515},
    }


def test_x1_by_the_rule_of_bars(x1):
    out, stats = prepared(x1, protocol="bars", min_count=6)
    assert stats["rows"] == {"train": 20, "valid": 3, "test": 3}
    assert stats["protocol"] == "bars"
    # Padding at the front, and so cut at the front: the most recent 50.
    assert stored_rows(out, "valid")[0]["cate_his"][0] == "c10"
    # In 20 rows with 0 to 3 events c0 is there 15 times, c1 10 times and c2 5 times; "4" 20 times.
    assert lc.Schema.load(out).table("category").vocabulary == ("4", "c0", "c1")


def test_the_command(x1):
    arguments = ["--raw", str(x1), "--out", str(x1.parent / "out"), "--workers", "1"]
    result = CliRunner().invoke(recipe.main, arguments)
    assert result.exit_code == 0
    assert "rows train 18, valid 2, test 3; protocol honest" in result.stdout
    assert "WARNING: 20 rows of train.csv were found" in result.stderr
    other = CliRunner().invoke(recipe.main, ["--raw", str(x1.parent), "--out", "new"])
    assert other.exit_code == 2
    assert other.stderr.startswith("Error: ")
    assert "name the folder with one of these sets of files" in other.stderr
