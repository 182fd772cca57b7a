"""Bytes cut into records, held to a reading of them one character at a time."""

import io
import random

import pytest

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.records import Records
from loopctr_tf.prepare.text_files import TextFile


def slow_records(data: bytes, quoting: bool) -> list[tuple[int, list[bytes]]] | None:
    """[(line, fields)], one character at a time; None where a quote is never closed."""
    records, fields, cell, begun, quoted, fresh = [], [], b"", False, False, True
    line = start = 1
    position = 0
    while position < len(data):
        char, following = data[position : position + 1], data[position + 1 : position + 2]
        position += 1
        is_break = char == b"\n" or (char == b"\r" and following != b"\n")
        line += is_break
        if quoted:
            if char != b'"':
                cell += char
            elif following == b'"':
                cell, position = cell + b'"', position + 1
            else:
                quoted = False
        elif char == b"\r" and not is_break:
            pass
        elif is_break:
            if begun:
                records.append((start, [*fields, cell]))
            fields, cell, begun, fresh, start = [], b"", False, True, line
        elif char == b",":
            fields, cell, begun, fresh = [*fields, cell], b"", True, True
        else:
            begun, quoted = True, quoting and fresh and char == b'"'
            cell, fresh = cell + (b"" if quoted else char), False
    if begun:
        records.append((start, [*fields, cell]))
    return None if quoted else records


def cut(path, columns: int, **settings):
    """[(row, line, fields, or None where their number is wrong)] as the file class reads them."""
    names = [str(index) for index in range(columns)]
    file = TextFile(path, names, **settings)
    rows = []
    for raw in file.batches(names):
        cells = zip(*(column.to_pylist() for column in raw.columns), strict=True)
        rows += zip(raw.rows.tolist(), raw.lines.tolist(), map(list, cells), strict=True)
        rows += [(bad.row, bad.line, None) for bad in raw.bad]
    return sorted(rows, key=lambda row: row[0])


ALPHABETS = [b'a,\n"', b'ab,\r\n"', b'a,\r\n""']


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_any_bytes_are_cut_as_one_character_after_the_other(tmp_path, alphabet):
    rng, path, whole = random.Random(1), tmp_path / "f.csv", 0
    for _ in range(60):
        data = bytes(rng.choice(alphabet) for _ in range(rng.randint(1, rng.choice([5, 60]))))
        path.write_bytes(data)
        quoting, columns, block = rng.random() < 0.8, rng.choice([1, 2, 3]), rng.choice([1, 2, 7])
        expected = slow_records(data, quoting)
        if expected is None:
            with pytest.raises(UsageError, match="is not closed"):
                cut(path, columns, quoting=quoting, block=block)
            continue
        whole += 1
        assert cut(path, columns, quoting=quoting, block=block) == [
            (row, line, fields if len(fields) == columns else None)
            for row, (line, fields) in enumerate(expected, start=1)
        ], data
    assert whole > 15


def test_line_breaks_in_quotes_belong_to_the_record():
    data = b'1,"a\nb\r\nc"\r\n\r\n2,"x"\r3,y'
    first, last = Records(io.BytesIO(data), "f", b",")
    assert bytes(first.data) == b'1,"a\nb\r\nc"\r\n\r\n2,"x"\r'
    assert (first.starts.tolist(), first.lines.tolist()) == ([0, 14], [1, 5])
    assert first.breaks_in_values
    assert (bytes(last.data), last.lines.tolist(), last.breaks_in_values) == (b"3,y\n", [6], False)


@pytest.mark.parametrize(
    ("long", "field"),
    [
        (b"a," + b"b" * 90 + b",c", 1),
        (b'a,"' + b"b,b" * 30 + b'",c', 1),
        (b'a,"b\nb",' + b"c" * 60 + b',"d\n"', 2),
        (b"a," + b"b" * 60 + b"\rc,", 1),
    ],
)
@pytest.mark.parametrize("block", [1, 8, 1000])
def test_a_record_that_is_too_long_is_passed_over(long, field, block):
    data = b"a,b\n\n" + long + b"\n\nx,y,z\nlast\n"
    expected = slow_records(data, True)
    blocks = list(Records(io.BytesIO(data), "f", b",", block=block, most=20))
    told = [part.long for part in blocks if part.long]
    assert told == [(3, field)]
    lines = [line for part in blocks for line in part.lines.tolist()]
    assert lines == [line for line, _ in expected if line != 3]
    assert b"".join(bytes(part.data) for part in blocks).endswith(b"x,y,z\nlast\n")


def test_a_quote_that_is_never_closed_is_told_with_its_line():
    data = b'a\n"b\nb",c\nd,"' + b"e\n" * 50
    match = "opens a field in the record of line 4 is not closed.*also with --skip-bad"
    with pytest.raises(UsageError, match=match):
        list(Records(io.BytesIO(data), "f", b","))
    with pytest.raises(UsageError, match=match):
        list(Records(io.BytesIO(data + b'"\n'), "f", b",", block=8, most=20))
