"""One spelling of a value whatever it came as; the fast ways held to the rule of one value."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from loopctr_tf.features.values import (
    EXACT,
    MISSING_WORDS,
    BadValueError,
    id_text,
    id_texts,
    number,
    numbers,
    respelt,
    whole_floats,
    whole_number,
    whole_numbers,
)

TEXTS = {
    "117": "117",
    "117.0": "117",
    "-5.00": "-5",
    " 117 ": "117",
    "a\u00a0": "a",
    "True": "true",
    "FALSE": "false",
    "NA": None,
    " n/a": None,
    "\\N": None,
    "NULL": None,
    "None": None,
    "nan": None,
    "": None,
    "  ": None,
    "007": "007",
    "1e5": "1e5",
    "a.0": "a.0",
    "1.0.0": "1.0.0",
    "117.5": "117.5",
    "na\u00efve": "na\u00efve",
    "9007199254740991.0": "9007199254740991",
}


def test_text_has_one_spelling_as_a_value_and_as_an_array():
    texts = list(TEXTS)
    assert [id_text(text) for text in texts] == list(TEXTS.values())
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        assert id_texts(pa.array([*texts, None], kind)).to_pylist() == [*TEXTS.values(), None]
    assert id_texts(texts).to_pylist() == list(TEXTS.values())
    assert respelt(texts) == [text or "" for text in TEXTS.values()]
    plain = ["a", "", "007"]
    assert respelt(plain) is plain
    assert all(id_text(word.upper()) is None for word in MISSING_WORDS)


def test_numbers_and_truth_values_as_text():
    assert [id_text(value) for value in (117, 117.0, 0.5, True, None, float("nan"))] == [
        *("117", "117", "0.5", "true", None, None)
    ]
    assert id_texts(pa.array([117.0, 0.5, None, np.nan])).to_pylist() == ["117", "0.5", None, None]
    assert id_texts(pa.array([2**63], pa.uint64())).to_pylist() == [str(2**63)]
    assert id_texts(pa.array([True, None])).to_pylist() == ["true", None]
    assert id_texts(pa.array([Decimal("117.00")])).to_pylist() == ["117"]
    assert id_texts(pa.nulls(2)).to_pylist() == [None, None]


WHOLE = [
    ([117, None], pa.int32(), [117, None]),
    ([2**63 - 1], pa.uint64(), [2**63 - 1]),
    ([117.0, None, np.nan, float(EXACT - 1)], pa.float64(), [117, None, None, EXACT - 1]),
    ([True], pa.bool_(), [1]),
    (["117", " +3", "4.0", "NA", "1e3", "-9223372036854775808", None], pa.string(), None),
    (["1", "2"], pa.string(), [1, 2]),
    ([b"12", b""], pa.binary(), [12, None]),
    ([Decimal("3.0")], pa.decimal128(5, 1), [3]),
    ([None], pa.null(), [None]),
]


@pytest.mark.parametrize(("values", "kind", "expected"), WHOLE)
def test_whole_numbers_are_exact_however_they_came(values, kind, expected):
    expected = expected or [117, 3, 4, None, 1000, -(2**63), None]
    assert whole_numbers(pa.array(values, kind)).to_pylist() == expected
    assert [whole_number(value) for value in values] == expected
    assert whole_numbers(values).to_pylist() == expected


@pytest.mark.parametrize(
    ("values", "kind", "problem"),
    [
        ([1.0, 2.0**53], pa.float64(), "beyond 2^53 and not stored as a whole number"),
        ([1.0, 2.0**24], pa.float32(), "beyond 2^24 and not stored as a whole number"),
        (["1", "9007199254740993.0"], pa.string(), "beyond 2^53 and not stored as a whole number"),
        (["1", "9.007199254740992e+15"], pa.string(), "beyond 2^53 and not stored as a whole"),
        ([1, 2**63], pa.uint64(), "beyond int64"),
        (["1", "9223372036854775808"], pa.string(), "beyond int64"),
        (["1", "9" * 5000], pa.string(), "beyond int64"),
        ([1.0, 2.5], pa.float64(), "not a whole number"),
        ([1.0, np.inf], pa.float64(), "not a whole number"),
        (["1", "0x10"], pa.string(), "not a whole number"),
        ([Decimal("1.0"), Decimal("2.5")], pa.decimal128(5, 1), "not a whole number"),
    ],
)
def test_what_is_no_whole_number_is_named_and_never_rounded(values, kind, problem):
    for given in (pa.array(values, kind), values):
        if given is values and kind == pa.float32():
            continue  # Python has no such floats
        with pytest.raises(BadValueError) as caught:
            whole_numbers(given)
        assert caught.value.problem.startswith(problem)
        assert (caught.value.position, caught.value.value) == (1, values[1])


def test_doubles_beyond_2_53_are_no_text_either():
    for given in (["a", 2.0**53], ["a", "9007199254740993.0"], pa.array([1.0, 2.0**60])):
        with pytest.raises(BadValueError, match=r"beyond 2\^53") as caught:
            id_texts(given)
        assert caught.value.position == 1
    with pytest.raises(BadValueError, match=r"beyond 2\^53"):
        respelt(["a", "9007199254740993.0"])


def test_numbers():
    texts = ["1.5", " 2 ", "NA", "1e-3", None]
    assert numbers(pa.array(texts)).to_pylist() == [1.5, 2.0, None, 0.001, None]
    assert numbers(texts).to_pylist() == [number(text) for text in texts]
    assert numbers(pa.array([1, None])).to_pylist() == [1.0, None]
    with pytest.raises(BadValueError, match="value 1 is '1,5', not a number"):
        numbers(["1", "1,5"])


def test_whole_floats_of_any_shape():
    assert whole_floats(np.array([[1.0], [-3.0]])).tolist() == [[1], [-3]]
    assert whole_floats(np.array([1.0, np.nan]), missing=-1).tolist() == [1, -1]
    with pytest.raises(BadValueError, match="value 1 is nan, not a whole number"):
        whole_floats(np.array([1.0, np.nan]))
