"""Files of every kind, whole and damaged: what is read, and what one line tells about the rest."""

import csv
import gzip
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.reading import Rejects, TableReader, WantedColumn, data_files

WANTED = (
    WantedColumn("user", "string", required=True),
    WantedColumn("item", "int64"),
    WantedColumn("time", "time", required=True),
    WantedColumn("label", "binary", required=True),
    WantedColumn("price", "float32"),
    WantedColumn("tags", "string", separator="|"),
)
HEADER = "price,user,item,more,time,label,tags\n"
ROWS = "0.5,u1,7,x,10,1,a|b\n,u2,,y,11,0,\n1e2,é,-9,z,12,1,c\n"
TABLE = {
    "user": ["u1", "u2", "é"],
    "item": [7, None, -9],
    "time": [10_000_000, 11_000_000, 12_000_000],
    "label": [1, 0, 1],
    "price": [0.5, None, 100.0],
    "tags": [["a", "b"], [], ["c"]],
}


def write(path, text: str | bytes):
    """Writes text to a file, packed where its name ends in .gz; returns the path."""
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read(paths, wanted=WANTED, **settings) -> dict[str, list]:
    """All rows as lists by column."""
    tables = list(TableReader(paths, wanted, **settings))
    for table in tables:
        table.validate(full=True)
        assert 0 < len(table) <= settings.get("batch_rows", 65536)
        assert table.schema == pa.schema([(w.name, w.arrow_type) for w in wanted])
    empty = pa.schema([(w.name, w.arrow_type) for w in wanted]).empty_table()
    return pa.concat_tables([empty, *tables]).to_pydict()


def parquet(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


# What is read.


def test_text_files(tmp_path):
    for name in ("e.csv", "e.csv.gz", "e.txt"):
        path = write(tmp_path / name, HEADER + ROWS)
        for batch_rows in (1, 2, 65536):
            assert read(path, batch_rows=batch_rows) == TABLE


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + HEADER + ROWS,
        (HEADER + ROWS).replace("\n", "\r\n"),
        "\n\n" + HEADER + "\n" + ROWS.replace("\n", "\n\n"),
        HEADER + ROWS.rstrip("\n"),
        HEADER.replace("more", '"mo\nre"') + ROWS.replace(",y,", ',"y,\n""",'),
    ],
    ids=["byte order mark", "CRLF", "empty lines", "no last line break", "quoted line breaks"],
)
def test_writings_of_csv(tmp_path, text):
    assert read(write(tmp_path / "e.csv", text)) == TABLE


def test_other_delimiters_and_no_header(tmp_path):
    names = HEADER.strip().split(",")
    assert read(write(tmp_path / "n.csv", ROWS), column_names=names) == TABLE
    write(tmp_path / "e.csv", HEADER + ROWS)
    assert read(write(tmp_path / "e.tsv", (HEADER + ROWS).replace(",", "\t"))) == TABLE
    assert read(write(tmp_path / "e.tsv.gz", (HEADER + ROWS).replace(",", "\t"))) == TABLE
    for delimiter in ";\t|":
        text = (HEADER + ROWS).replace("|", "/").replace(",", delimiter)
        path = write(tmp_path / "f.csv", "\ufeff\n" + text)
        wanted = (*WANTED[:5], WantedColumn("tags", "string", separator="/"))
        assert read(path, wanted) == TABLE
        assert read(path, wanted, delimiter=delimiter) == TABLE
    with pytest.raises(UsageError, match=r"more,time,label,tags only: is the delimiter another"):
        read(tmp_path / "e.csv", delimiter=";")
    for delimiter in ("::", "", "\n", '"', "é"):
        with pytest.raises(UsageError, match=r"delimiter is .*; give one character"):
            read(path, delimiter=delimiter)


def test_without_quoting_a_quote_is_a_character(tmp_path):
    path = write(tmp_path / "e.csv", 'user,title\nu1,"7"" tape\nu2,a "b" c\n')
    wanted = (WantedColumn("user", "string"), WantedColumn("title", "string"))
    expected = {"user": ["u1", "u2"], "title": ['"7"" tape', 'a "b" c']}
    assert read(path, wanted, quoting=False) == expected
    with pytest.raises(UsageError, match=r"row 1 \(line 2\), column 'title': line break in a val"):
        read(path, wanted)


def test_parquet(tmp_path):
    columns = {
        **{name: TABLE[name] for name in ("user", "item", "label", "tags")},
        "price": pa.array([0.5, np.nan, 100.0]),
        "time": pa.array(TABLE["time"], pa.timestamp("us")),
        "more": ["x", "y", "z"],
    }
    path = parquet(tmp_path / "e.parquet", **columns)
    for batch_rows in (1, 2, 65536):
        assert read(path, batch_rows=batch_rows) == TABLE
    path.rename(tmp_path / "e")
    assert read(tmp_path / "e") == TABLE
    reader = TableReader(tmp_path / "e", WANTED)
    assert reader.column_types() == {
        "user": pa.string(),
        "item": pa.int64(),
        "label": pa.int64(),
        "tags": pa.list_(pa.string()),
        "price": pa.float64(),
        "time": pa.timestamp("us"),
        "more": pa.string(),
    }
    assert list(reader) == list(reader)


def test_rows_of_many_bytes_come_in_smaller_batches(tmp_path, monkeypatch):
    monkeypatch.setattr("loopctr_tf.prepare.parquet_files.BATCH_BYTES", 10_000)
    path = tmp_path / "e.parquet"
    names = [f"{index:01000d}" for index in range(50)]
    table = pa.table({"user": names, "item": range(50)})
    pq.write_table(table, path, use_dictionary=False, row_group_size=40)
    sizes = [len(t) for t in TableReader(path, [WantedColumn("user", "string")])]
    assert sizes == [9, 9, 9, 9, 4, 8, 2]  # Each group has some bytes of its own.
    assert [len(t) for t in TableReader(path, [WantedColumn("item", "int64")])] == [40, 10]
    assert read(path, [WantedColumn("user", "string")])["user"] == names


def test_several_files_and_folders(tmp_path):
    first = write(tmp_path / "b.csv", "user\nu1\nu2\n")
    folder = tmp_path / "part"
    folder.mkdir()
    parquet(folder / "2.parquet", user=["u4"])
    write(folder / "1.csv.gz", "n,user\n1,u3\n")
    for name in ("_SUCCESS", ".2.parquet.crc"):
        write(folder / name, "")
    wanted = [WantedColumn("user", "string")]
    assert data_files([first, folder]) == [first, folder / "1.csv.gz", folder / "2.parquet"]
    assert read([str(first), folder], wanted) == {"user": ["u1", "u2", "u3", "u4"]}
    assert read(folder, wanted) == {"user": ["u3", "u4"]}


# What is refused at once.


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("e.csv", b"", "e.csv' is empty; leave it out, or write it again"),
        ("e.csv", b"\n\n", "has no header; write one, or give"),
        ("e.csv", b"uS\xffer,time\n", "the header is not UTF-8"),
        (
            "e.csv",
            gzip.compress(b"user\n", mtime=0),
            "e.csv' is gzip; give it a name that ends in .gz",
        ),
        ("e.csv.gz", b"user\nu1\n", "is not a valid gzip file (Not a gzipped file (b'us')); what"),
        ("e.csv.gz", gzip.compress(b"user\n" * 9, mtime=0)[:8], "the gzip data is truncated"),
        ("e.csv", b"User,item\n", "e.csv' has no column 'user'; its columns are User, item"),
        ("e.csv", b"user,item,user\n", "has column 'user' more than once; keep one"),
        ("e.csv", b'"user\nu1\nu2\n', "record of line 1 is not closed"),
        ("e.parquet", b"user\nu1\n", "e.parquet' cannot be read: "),
    ],
)
def test_a_file_that_is_none(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match=re.escape(words)) as raised:
        TableReader(tmp_path / name, [WantedColumn("user", "string")])
    assert "\n" not in str(raised.value)


def test_paths_that_hold_no_data(tmp_path):
    def refused(paths, words):
        with pytest.raises(UsageError, match=re.escape(words)):
            TableReader(paths, [WantedColumn("user", "string")])

    refused(tmp_path / "e.csv", "e.csv' does not exist; name a Parquet or CSV file")
    refused([], "no files are named")
    refused(tmp_path, "holds no Parquet or CSV file; name another")
    write(tmp_path / "a.csv", "user\n")
    write(tmp_path / "notes.txt", "user\n")
    refused(
        tmp_path, "holds 'notes.txt', which is not a Parquet or CSV file; name the files themsel"
    )
    (tmp_path / "notes.txt").unlink()
    (tmp_path / "day=1").mkdir()
    refused(tmp_path, "holds 'day=1', which is not a Parquet or CSV file")


LISTS = pa.array([[1]])


@pytest.mark.parametrize(
    ("column", "wanted", "words"),
    [
        (
            LISTS,
            {"type": "int64"},
            "holds lists (list<element: int64>), but single values are needed; make",
        ),
        (LISTS[0].values, {"type": "int64", "many": True}, "is int64, but lists are needed; store"),
        (pa.array([{"a": 1}]), {"type": "string"}, "is struct<a: int64>, which cannot be read as"),
        (pa.array([True]), {"type": "time"}, "is bool, which cannot be read as time"),
    ],
)
def test_a_type_that_cannot_be_converted(tmp_path, column, wanted, words):
    path = parquet(tmp_path / "e.parquet", c=column)
    with pytest.raises(UsageError, match=re.escape(words)):
        TableReader(path, [WantedColumn("c", **wanted)])


def test_a_type_that_changes_between_files(tmp_path):
    wanted = [WantedColumn("c", "string")]
    numbers = parquet(tmp_path / "n.parquet", c=[1, 2])
    fractions = parquet(tmp_path / "f.parquet", c=[3.0, np.nan])
    missing = parquet(tmp_path / "m.parquet", c=pa.nulls(1))
    words = parquet(tmp_path / "w.parquet", c=["a"])
    text = write(tmp_path / "t.csv", "c\n7\n")
    # pandas makes floats of whole numbers when one is missing, and text has no types.
    expected = {"c": ["1", "2", None, "3", None, "7"]}
    assert read([numbers, missing, fractions, text], wanted) == expected
    with pytest.raises(UsageError, match=r"'c' is string in '.*w.parquet' and int64 in '.*n.parq"):
        TableReader([numbers, missing, words], wanted)


def test_mistakes_in_what_is_wanted(tmp_path):
    path = write(tmp_path / "e.csv", HEADER)
    with pytest.raises(UsageError, match="column 'user' is asked for twice"):
        TableReader(path, [WantedColumn("user", "string"), WantedColumn("user", "int64")])
    with pytest.raises(UsageError, match="'user': type is 'text'; choose string, int64, float32"):
        WantedColumn("user", "text")
    with pytest.raises(UsageError, match="'t': time_unit is 'h'; choose s, ms, us, ns"):
        WantedColumn("t", "time", unit="h")
    with pytest.raises(UsageError, match="'c': separator is empty"):
        WantedColumn("c", "string", separator="")


# Bad rows.

GOOD = "0.5,u1,7,x,10,1,a\n"
BAD = [
    # A third row; its column, reason, value and the beginning of the remedy.
    ("1,,7,x,10,1,a", "user", "missing", None, "fill it in"),
    ("1,u1,7,x,10,2,a", "label", "label other than 0 and 1", "2", "write 0 or 1"),
    ("1,u1,7,x,noon,1,a", "time", "not a time", "noon", "write a number (time_unit is s) or an"),
    ("1,u1,seven,x,10,1,a", "item", "not a number", "seven", "write a number"),
    ("1,u1,7.5,x,10,1,a", "item", "not a whole number", "7.5", "write a whole number"),
    (f"1,u1,{2**63},x,10,1,a", "item", "beyond int64", str(2**63), "give the table dtype: str"),
    ("inf,u1,7,x,10,1,a", "price", "infinite or beyond float32", "inf", "replace it"),
    ("1,u\0,7,x,10,1,a", "user", "NUL byte", "u\\x00", "the file is damaged there"),
    ('1,"u\n1",7,x,10,1,a', "user", "line break in a value", "u\\n1", "replace line breaks"),
    (b"1,u\xff,7,x,10,1,a", "user", "not UTF-8", "u\\xff", "convert the file"),
    (b"1,u,7,x,10,1,a|\xff", "tags", "not UTF-8", "a|\\xff", "convert the file"),
    ("1,u1,7", "", "wrong number of fields", "3 for 7: 1,u1,7", "look for a delimiter"),
    (
        f"1,{'u' * 9000},7,x,10,1,a",
        "user",
        "cell of more than 5,000 bytes",
        "u" * 40 + "... (9,000 bytes)",
        "shorten it",
    ),
    (f"1,u1,7,{'u' * 200_000},10,1,a", "more", "row of more than 80,000 bytes", None, "shorten"),
    (f'1,u1,7,"{"u" * 200_000}",10,1,a', "more", "row of more than 80,000 bytes", None, "shorten"),
]


def bad_file(path, bad: str | bytes):
    bad = bad.encode() if isinstance(bad, str) else bad
    return write(path, (HEADER + GOOD + GOOD).encode() + bad + b"\n" + (GOOD * 2).encode())


@pytest.mark.parametrize(
    ("bad", "column", "reason", "value", "remedy"), BAD, ids=lambda v: v and v[:30]
)
def test_the_first_bad_row_is_one_line(tmp_path, bad, column, reason, value, remedy):
    path = bad_file(tmp_path / "e.csv.gz", bad)
    with pytest.raises(UsageError) as raised:
        read(path, cell_limit=5000)
    message = str(raised.value)
    place = f"{str(path)!r}, row 3 (line 4)" + (f", column {column!r}" if column else "")
    assert message.startswith(f"{place}: {reason}" + (f", '{value}'" if value else ""))
    assert f"; {remedy}" in message
    assert message.endswith(", or leave such rows out with --skip-bad")
    assert "\n" not in message
    assert len(message) < 400


def test_bad_rows_are_counted_written_and_left_out(tmp_path):
    lines = [bad if isinstance(bad, bytes) else bad.encode() for bad, *_ in BAD]
    text = HEADER.encode() + b"".join(GOOD.encode() + line + b"\n" for line in lines)
    path = write(tmp_path / "e.csv", text)
    with Rejects(tmp_path / "rejects.csv") as rejects:
        reader = TableReader(path, WANTED, rejects=rejects, cell_limit=5000, batch_rows=4)
        rows = pa.concat_tables(list(reader))
        again = pa.concat_tables(list(reader))
    assert len(rows) == len(BAD)
    assert rows.slice(0, 1).to_pydict() == {name: values[:1] for name, values in TABLE.items()} | {
        "tags": [["a"]]
    }
    assert rows.to_pylist() == [rows.to_pylist()[0]] * len(BAD)
    # Told once, though the file was read twice.
    assert again == rows
    with (tmp_path / "rejects.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [int(row["row"]) for row in written] == [2 * (i + 1) for i in range(len(BAD))]
    assert {row["file"] for row in written} == {str(path)}
    for row, (_, column, reason, value, _) in zip(written, BAD, strict=True):
        assert (row["column"], row["reason"]) == (column, reason)
        if value and "..." not in value:
            assert row["value"] == value
    counts = {}
    for _, _, reason, _, _ in BAD:
        counts[reason] = counts.get(reason, 0) + 1
    assert rejects.counts == counts


def test_a_row_counts_once_by_its_first_wanted_column(tmp_path):
    path = write(tmp_path / "e.csv", HEADER + "x,,seven,y,noon,3,\n")
    with Rejects(tmp_path / "rejects.csv") as rejects:
        assert read(path, rejects=rejects)["user"] == []
    assert rejects.counts == {"missing": 1}
    with Rejects(tmp_path / "rejects.csv") as rejects:
        assert read(path, WANTED[1:], rejects=rejects)["item"] == []
    assert rejects.counts == {"not a number": 1}


def test_bad_rows_of_parquet_and_of_several_files(tmp_path):
    columns = {"user": ["u1", None, "u3", "a\0"], "item": [1.0, 2.0, 2.5, 4.0]}
    first, second = (
        parquet(tmp_path / "1.parquet", **columns),
        parquet(tmp_path / "2.pq", **columns),
    )
    wanted = WANTED[:2]
    with pytest.raises(UsageError) as raised:
        read([first, second], wanted)
    assert str(raised.value) == (
        f"{str(first)!r}, row 2, column 'user': missing; fill it in, or leave such rows out with "
        "--skip-bad"
    )
    with Rejects(tmp_path / "rejects.csv") as rejects:
        expected = {"user": ["u1", "u1"], "item": [1, 1]}
        assert read([first, second], wanted, rejects=rejects, batch_rows=3) == expected
    assert rejects.counts == {"missing": 2, "not a whole number": 2, "NUL byte": 2}
    lines = (tmp_path / "rejects.csv").read_text().splitlines()
    assert lines == ["file,row,column,reason,value"] + [
        line
        for path in (first, second)
        for line in (
            f"{path},2,user,missing,",
            f"{path},3,item,not a whole number,2.5",
            f"{path},4,user,NUL byte,a\\x00",
        )
    ]


def test_a_column_that_becomes_text_in_the_middle(tmp_path):
    rows = [f"u{i},{i}\n" for i in range(200_000)]
    rows[150_000] = "u,gone\n"
    path = write(tmp_path / "e.csv", "user,item\n" + "".join(rows))
    with pytest.raises(
        UsageError,
        match=r"row 150,001 \(line 150,002\), column 'item': not a number, 'gone'; write",
    ):
        read(path, WANTED[:2])
    with Rejects(tmp_path / "rejects.csv") as rejects:
        table = read(path, WANTED[:2], rejects=rejects)
    assert table["item"] == [i for i in range(200_000) if i != 150_000]


# What cannot be skipped.


def until_it_fails(path, wanted, rejected) -> tuple[str, int, int]:
    """(message of the UsageError, rows read before it, rows left out before it)."""
    seen = 0
    with Rejects(rejected) as rejects:
        try:
            for table in TableReader(path, wanted, rejects=rejects):
                seen += len(table)
        except UsageError as error:
            return str(error), seen, sum(rejects.counts.values())
    pytest.fail("the file was read to its end")


def test_a_gzip_that_was_cut_short_or_damaged(tmp_path):
    rng = np.random.default_rng(0)
    rows = "".join(f"u{i},{n}\n" for i, n in enumerate(rng.integers(0, 10**9, 300_000)))
    whole = gzip.compress(("user,item\n" + rows).encode(), 1)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    for data, words in (
        (whole[:-1000], "the gzip data is truncated"),
        (whole[:-4], "the gzip data is truncated"),
        (bytes(damaged), "is not a valid gzip file"),
        (whole + b"and more", "is not a valid gzip file"),
    ):
        path = tmp_path / "e.csv.gz"
        path.write_bytes(data)
        message, seen, left_out = until_it_fails(path, WANTED[:2], tmp_path / "rejects.csv")
        assert words in message
        told = re.search(
            r"what follows row ([0-9,]+) cannot be read, also with --skip-bad", message
        )
        assert int(told[1].replace(",", "")) == seen + left_out
        assert seen > 0


def test_a_parquet_file_that_is_damaged(tmp_path):
    path = tmp_path / "e.parquet"
    users = [f"u{i}" for i in range(50_000)]
    pq.write_table(pa.table({"user": users}), path, row_group_size=10_000, use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 30_000] = b"\xff" * 30_000
    path.write_bytes(data)
    message, seen, _ = until_it_fails(path, WANTED[:1], tmp_path / "rejects.csv")
    assert f"what follows row {seen:,} cannot be read, also with --skip-bad; write the" in message
    assert seen >= 10_000
    path.write_bytes(data[:-100])
    with pytest.raises(UsageError, match="is it a whole Parquet file"):
        TableReader(path, WANTED[:1])


def test_memory_does_not_grow_with_the_file(tmp_path):
    path = write(tmp_path / "e.csv", "user,item\n" + "u12345,67890\n" * 1_200_000)
    before, peak = pa.total_allocated_bytes(), 0
    for _ in TableReader(path, WANTED[:2]):
        peak = max(peak, pa.total_allocated_bytes() - before)
    # 15 MB of text; a block has 4.
    assert 0 < peak < 15 << 20
