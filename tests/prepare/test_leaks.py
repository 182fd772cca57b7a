"""How well a column by itself predicts the label, worked out by hand."""

import pytest

from loopctr_tf.prepare.files import TableFiles
from loopctr_tf.prepare.leaks import Judge, Verdict, too_good
from loopctr_tf.prepare.sample import take_sample
from tests.prepare.test_proposal import save

HALF = 100
LABEL = [1] * HALF + [0] * HALF


def verdict(tmp_path, values, label=LABEL, **more) -> Verdict:
    """Of a column beside a label of 100 clicks and 100 others, by default of 200 users and items."""
    rows = list(range(len(label)))
    columns = {"user": rows, "item": rows, "click": label, "x": values, **more}
    sample = take_sample(TableFiles(save(tmp_path / "e.csv", columns), "events"))
    return Judge(sample, ("item", "user"), "click = '1'")(sample.profiles["x"])


def test_a_number_is_judged_by_its_order_in_either_direction(tmp_path):
    # 3 is what 75 of 100 clicks have, and 25 of 100 others: 1/2 + (75% - 25%) / 2 of the pairs.
    mostly_high, mostly_low = [2] * 25 + [3] * 75, [2] * 75 + [3] * 25
    assert verdict(tmp_path, mostly_high + mostly_low).auc == pytest.approx(0.75)
    assert verdict(tmp_path, mostly_low + mostly_high).auc == pytest.approx(0.75)


def test_values_are_judged_by_their_rate_in_other_rows(tmp_path):
    values = ["a"] * 90 + ["b"] * 10 + ["a"] * 10 + ["b"] * 90
    # 0.9, less a little: the rates of the folds differ, and against the labels.
    assert 0.85 < verdict(tmp_path, values).auc < 0.9
    # Neither end nor middle, so that the order alone tells nothing.
    middle = [50] * HALF + [1, 99] * (HALF // 2)
    assert verdict(tmp_path, middle).auc == pytest.approx(1.0)


def test_ids_tell_nothing_by_memory(tmp_path):
    assert verdict(tmp_path, [f"id {n}" for n in range(2 * HALF)]).auc == pytest.approx(0.5)


@pytest.mark.parametrize("word", ["", "NA"])
def test_being_missing_is_a_value(tmp_path, word):
    found = verdict(tmp_path, [f"page {n}" for n in range(HALF)] + [word] * HALF)
    assert found.auc == pytest.approx(1.0)
    assert found.pure == "100.0% of the 100 rows that have it are positive"


def test_rows_of_one_label_are_pure(tmp_path):
    only_clicked = [1] * 60 + [0] * (2 * HALF - 60)
    assert "100.0% of the 60 rows" in verdict(tmp_path, only_clicked).pure
    few = [1] * 40 + [0] * (2 * HALF - 40)
    assert verdict(tmp_path, few).pure == ""
    never_clicked = [0] * (2 * HALF - 60) + [1] * 60
    assert "rows that have it are negative" in verdict(tmp_path, never_clicked).pure


def test_a_property_has_one_value_where_labels_differ(tmp_path):
    items = {"item": [n % 10 for n in range(2 * HALF)]}
    assert verdict(tmp_path, [n % 10 // 2 for n in range(2 * HALF)], **items).a_property
    assert not verdict(tmp_path, [1 - y for y in LABEL], **items).a_property
    # One value for nearly all items, which were never clicked: no property.
    rare = [1] * 20 + [0] * 980
    items = {"item": [n % 20 if n < 40 else n // 2 for n in range(1000)]}
    assert not verdict(tmp_path, [1 - y for y in rare], rare, **items).a_property


def test_few_labels_are_not_judged(tmp_path):
    assert verdict(tmp_path, list(range(30)), [1] * 19 + [0] * 11).auc is None


def test_too_good_is_far_above_the_others():
    assert too_good(0.99, 0.6)
    assert not too_good(0.97, 0.5)
    assert not too_good(0.985, 0.96)
    assert not too_good(None, 0.5)
