"""Bad rows: one line each, whatever their values hold."""

import pytest

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.rejects import BadRow, Problem, Rejects, shorten

ODD = Problem("odd", "make it even")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("short", "short"),
        ("ten chars.", "ten chars."),
        ("eleven char", "eleven cha... (11 characters)"),
        (b"ab\xff\x00", "ab\\xff\\x00"),
        ("a\nb\tc\u2028", "a\\nb\\tc\\u2... (6 characters)"),
        ("é" * 10, "é" * 10),
        ("é".encode() * 11, "é" * 10 + "... (22 bytes)"),
        ("é".encode() * 5000, "é" * 10 + "... (10,000 bytes)"),
        ("", ""),
    ],
)
def test_values_are_shown_on_one_line(value, expected):
    assert shorten(value, 10) == expected


def test_without_a_file_the_first_bad_row_is_an_error():
    rejects = Rejects()
    with pytest.raises(UsageError) as raised:
        rejects.add("e.csv", BadRow(1234, "n", ODD, "3", line=2345))
    assert str(raised.value) == (
        "'e.csv', row 1,234, line 2,345, column 'n': odd, '3'; make it even, or leave such rows out "
        "with --skip-bad"
    )
    with pytest.raises(UsageError) as raised:
        rejects.add("e.parquet", BadRow(1, "", ODD, None))
    assert str(raised.value).startswith("'e.parquet', row 1: odd; make it even, or ")
    rejects.close()


def test_with_a_file_they_are_counted_and_written(tmp_path):
    with Rejects(tmp_path / "rejects.csv") as rejects:
        rejects.add("a.csv", BadRow(7, "n", ODD, 'x,"\n', line=8))
        rejects.add("b.csv", BadRow(9, "", Problem("lost", "find it"), None))
        rejects.add("b.csv", BadRow(10, "n", ODD, "y" * 300))
    assert rejects.counts == {"odd": 2, "lost": 1}
    assert (tmp_path / "rejects.csv").read_text() == (
        "file,row,column,reason,value\r\n"
        'a.csv,7,n,odd,"x,""\\n"\r\n'
        "b.csv,9,,lost,\r\n"
        f"b.csv,10,n,odd,{'y' * 200}... (300 characters)\r\n"
    ).replace("\r\n", "\n")
