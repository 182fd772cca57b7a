"""Files of `prepare` and values of `score` and the client are spelled by the same rules."""

import math

import duckdb
import numpy as np
import pytest

from loopctr_tf.features.values import id_text, number, whole_number
from loopctr_tf.prepare.statements import text
from loopctr_tf.prepare.typed import WantedColumn, typed

CELLS = [
    *("117", "117.0", "117.00", "0117", "-5", "-5.0", "-0", "1e5", "007", "5.5", "a.0", "a b"),
    *(
        " 117 ",
        " a ",
        "True",
        "TRUE",
        "false",
        "true ",
        "x",
        "3.25",
        "5.50",
        "0.50",
        "-1.10",
        "00.50",
        "00117.0",
        "10.0",
        "100",
        "2.",
        ".5",
        "-0.0",
        "0.0",
        "12,5",
        "1,234.00",
    ),
    *("", " ", "nan", "NaN", "NULL", "None", "NA", "N/A", "n/a", "\\N", "nonesuch", "NaNa"),
    *("9007199254740991", "9007199254740993", "9007199254740991.0", "9007199254740993.0"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775808", "1.5", "inf"),
]


def of_prepare(cell: str, kind: str):
    """(value, whether there is a problem) in a text column."""
    expressions = typed(WantedColumn("c", kind), "VARCHAR")
    query = f"SELECT {expressions.value}, {expressions.problem} FROM (SELECT {text(cell)} AS c)"
    value, problem = duckdb.execute(query).fetchone()
    return (None, True) if problem is not None else (value, False)


def finite(cell: str) -> float | None:
    """``number``, of which the server refuses infinities."""
    found = number(cell)
    if found is not None and math.isinf(found):
        raise ValueError("infinite")
    return None if found is None else float(np.float32(found))


@pytest.mark.parametrize(
    ("kind", "rule"), [("string", id_text), ("int64", whole_number), ("float32", finite)]
)
def test_a_cell_of_text_is_the_same_to_both(kind, rule):
    differing = []
    for cell in CELLS:
        try:
            expected = (rule(cell), False)
        except ValueError:
            expected = (None, True)
        found = of_prepare(cell, kind)
        if found != expected:
            differing.append((cell, found, expected))
    assert differing == []
