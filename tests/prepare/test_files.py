"""Files of every kind, whole and damaged, as one table expression of DuckDB."""

import gzip
import re

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.files import FILE, LINE_REMEDIES, TableFiles, TextOptions
from loopctr_tf.prepare.text_scan import FIELDS, NOT_JSON, NOT_UTF8, OPEN_QUOTE

CSV = "user,item,title\nu1,7,a\nu2,,b c\n"
ROWS = [{"user": "u1", "item": "7", "title": "a"}, {"user": "u2", "item": None, "title": "b c"}]


def write(path, text: str | bytes):
    """Writes text to a file, packed where its name ends in .gz; returns the path."""
    data = text.encode() if isinstance(text, str) else text
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def parquet(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def read(files: TableFiles, threads: int = 4) -> tuple[list[dict], list[tuple[int, str, str]]]:
    """(rows without the file, bad lines without the file)."""
    with duckdb.connect() as connection:
        connection.execute(f"SET threads = {threads}")
        rows = connection.execute(f"SELECT * FROM {files.scan()}").to_arrow_table().to_pylist()
        bad = files.bad_lines(connection)
    assert all(line.reason in LINE_REMEDIES for line in bad)
    assert all(list(row) == [*files.columns, FILE] for row in rows)
    order = [row.pop(FILE) for row in rows]
    assert order == sorted(order, key=list(map(str, files.paths)).index)
    return rows, [line[1:] for line in bad]


def rows_of(path, options=TextOptions()) -> list[dict]:  # noqa: B008
    return read(TableFiles(path, "--events", options))[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("e.csv", CSV),
        ("e.csv.gz", CSV),
        ("e.txt", CSV),
        ("e.csv", "\ufeff" + CSV),
        ("e.csv", CSV.replace("\n", "\r\n")),
        ("e.csv", CSV.replace("\n", "\r")),
        ("e.csv", "\n\n" + CSV.replace("\n", "\n\n")),
        ("e.csv", CSV.rstrip("\n")),
        ("e.csv", CSV.replace(",", ", ", 2).replace("user", " user ")),
        ("e.csv", CSV.replace("u1,7,a", '"u1","7","a"')),
        ("e.csv", CSV.replace(",", ";")),
        ("e.csv", CSV.replace(",", "|")),
        ("e.tsv.gz", CSV.replace(",", "\t")),
        ("e.inter", CSV.replace(",", "\t")),
        ("a[1]*'.csv", CSV),
    ],
)
def test_writings_of_text(tmp_path, name, text):
    files = TableFiles(write(tmp_path / name, text), "--events")
    assert (files.format, files.notes, files.absent) == ("text", [], {})
    assert files.columns == dict.fromkeys(["user", "item", "title"], "VARCHAR")
    assert read(files) == (ROWS, [])


def test_names_of_columns(tmp_path):
    for text, names in (
        ("item_id:token,a b\n", ["item_id:token", "a b"]),
        ("用户,it's\n", ["用户", "it's"]),
        (",a\n", ["column_1", "a"]),
        ('"x, y","quote ""z"""\n', ["x, y", 'quote "z"']),
        ('"two\nlines",b\n', ["two\nlines", "b"]),
    ):
        files = TableFiles(write(tmp_path / "e.csv", text + "1,2\n"), "--events")
        assert list(files.columns) == names
        assert read(files)[0] == [dict(zip(names, ["1", "2"], strict=True))]


def test_options(tmp_path):
    path = write(tmp_path / "e.csv", "u1;a,b\nu2;c\n")
    options = TextOptions(delimiter=";", header=False, names=("user", "title"))
    assert rows_of(path, options) == [{"user": "u1", "title": "a,b"}, {"user": "u2", "title": "c"}]
    options = TextOptions(delimiter=";", header=False)
    assert list(TableFiles(path, "--events", options).columns) == ["column_1", "column_2"]
    with pytest.raises(UsageError, match=r"names has 1 entries, but the first line has 2 values"):
        TableFiles(path, "--events", TextOptions(delimiter=";", header=False, names=("user",)))
    with pytest.raises(
        UsageError, match=r"has one column 'user;a' if ',' is the del.* --delimiter ';'"
    ):
        TableFiles(write(path, "user;a\n1;2\n"), "--events", TextOptions(delimiter=","))
    with pytest.raises(UsageError, match=r"--delimiter ','"):
        TableFiles(write(tmp_path / "e.tsv", CSV), "--events")
    for delimiter in ("::", "", "\n", '"', "é"):
        with pytest.raises(UsageError, match=r"delimiter is .*; give one character"):
            TextOptions(delimiter=delimiter)
    with pytest.raises(UsageError, match=r"names are a, b, which are for files without a header"):
        TextOptions(names=("a", "b"))


# Quotes.


def test_a_lone_quote_swallows_no_lines(tmp_path):
    lines = [f"{n}\t{'the ' if n % 10 else chr(34)}big{n}\tend{n}" for n in range(3000)]
    path = write(tmp_path / "e.tsv", "user\tquery\tlast\n" + "\n".join(lines) + "\ncut\tshort\n")
    files = TableFiles(path, "--events")
    assert re.fullmatch(
        r"e.tsv: [\d,]+ rows with quotes, 3,000 without: quotes are read as text; .*", *files.notes
    )
    rows, bad = read(files)
    assert [row["user"] for row in rows] == [str(n) for n in range(3000)]
    assert rows[10]["query"] == '"big10'
    assert bad == [(3002, FIELDS, "2 for 3: cut\tshort")]


def test_quoted_cells_of_several_lines(tmp_path):
    text = 'user,text\nu1,"one\ntwo, ""2"""\nu2,"a\nb\nc"\nu3,plain\n'
    files = TableFiles(write(tmp_path / "e.csv", text), "--events")
    assert files.notes == [
        "e.csv: 2 quoted cells hold line breaks; give --no-quoting if quotes are text"
    ]
    assert [row["text"] for row in read(files)[0]] == ['one\ntwo, "2"', "a\nb\nc", "plain"]
    rows = rows_of(tmp_path / "e.csv", TextOptions(quoting=False))
    assert rows[0] == {"user": "u1", "text": '"one'}
    # Line breaks are in the middle of cells that DuckDB's threads begin at.
    long = "user,text\n" + "".join(f'{n},"{"x, y" * 9}\n{n}"\n' for n in range(30_000))
    rows, bad = read(TableFiles(write(tmp_path / "l.csv", long), "--events"))
    assert ([int(row["user"]) for row in rows], bad) == (list(range(30_000)), [])


def test_an_odd_quote_where_a_column_is_enclosed(tmp_path):
    lines = [f'"u{n}","title {n}"' for n in range(50)]
    lines[20], lines[30] = '"u20","6" tape"', '"u30","open'
    files = TableFiles(write(tmp_path / "e.csv", "user,title\n" + "\n".join(lines)), "--events")
    rows, bad = read(files)
    assert rows[0] == {"user": "u0", "title": "title 0"}
    assert bad[0] == (22, OPEN_QUOTE, '"u20","6" tape"')
    assert bad[1][0] == 32
    swallowed = sum(text.count("\n") for *_, text in bad)
    assert len(rows) + len(bad) + swallowed == 50


def test_without_quoting_a_quote_is_a_character(tmp_path):
    path = write(tmp_path / "e.csv", 'user,title\nu1,"7"" tape\nu2,a "b" c\n')
    expected = [{"user": "u1", "title": '"7"" tape'}, {"user": "u2", "title": 'a "b" c'}]
    assert rows_of(path, TextOptions(quoting=False)) == expected
    assert rows_of(path) == expected
    rows, bad = read(TableFiles(path, "--events", TextOptions(quoting=True)))
    assert (rows, [line[:2] for line in bad]) == ([], [(2, OPEN_QUOTE)])


# Bad lines.


@pytest.mark.parametrize("name", ["e.csv", "e.csv.gz"])
def test_bad_lines_are_listed_and_good_ones_survive(tmp_path, name):
    good = b'u,"a, b"\n'
    lines = [
        (b"1\n", FIELDS, "1 for 2: 1"),
        (b"1,2,3\n", FIELDS, "3 for 2: 1,2,3"),
        (b"1,\xff\n", NOT_UTF8, "1,?"),
        (b'1,"x"y\n', OPEN_QUOTE, '1,"x"y'),
    ]
    text = b"\xef\xbb\xbfuser,title\n\n" + b"".join(good + b"\n" + line for line, *_ in lines)
    path = write(tmp_path / name, text + good + b'9,"open\n5,6')
    for threads in (1, 4):
        rows, bad = read(TableFiles(path, "--events", TextOptions(quoting=True)), threads)
        assert rows == [{"user": "u", "title": "a, b"}] * 5
        expected = [(5 + 3 * n, *line[1:]) for n, line in enumerate(lines)]
        assert bad == [*expected, (16, OPEN_QUOTE, '9,"open\n5,6')]


def test_many_bad_lines_have_their_numbers(tmp_path):
    lines = [f"{n},{n}" if n % 100 else f"{n}" for n in range(1, 100_001)]
    files = TableFiles(write(tmp_path / "e.csv", "a,b\n" + "\n".join(lines)), "--events")
    rows, bad = read(files)
    assert len(rows) == 99_000
    assert [line for line, *_ in bad] == list(range(101, 100_002, 100))


# Several files.


def test_folders(tmp_path):
    first = write(tmp_path / "b.csv", "user\nu1\nu2\n")
    folder = tmp_path / "part"
    write(folder / "2.csv", "user\nu4\n")
    write(folder / "1.csv.gz", "n,user\n1,u3\n")
    for name in ("_SUCCESS", ".2.csv.crc"):
        write(folder / name, "")
    files = TableFiles([str(first), folder], "--events")
    assert files.paths == [first, folder / "1.csv.gz", folder / "2.csv"]
    assert files.absent == {"n": [first, folder / "2.csv"]}
    assert [row["user"] for row in read(files)[0]] == ["u1", "u2", "u3", "u4"]
    assert [row["n"] for row in read(files)[0]] == [None, None, "1", None]


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_hive_folders(tmp_path, kind):
    for day, user in (
        ("2024-01-02", "u2"),
        ("2024-01-01", "u1"),
        ("__HIVE_DEFAULT_PARTITION__", "u3"),
    ):
        path = tmp_path / f"dt={day}" / "country=d%20e" / f"0.{kind}"
        if kind == "parquet":
            parquet(path, user=[user])
        else:
            write(path, f"user\n{user}\n" if kind == "csv" else f'{{"user": "{user}"}}\n')
    write(tmp_path / "_SUCCESS", "")
    files = TableFiles(tmp_path, "--events")
    assert files.columns == dict.fromkeys(["user", "dt", "country"], "VARCHAR")
    days = {"u1": "2024-01-01", "u2": "2024-01-02", "u3": None}
    expected = [{"user": user, "dt": day, "country": "d e"} for user, day in days.items()]
    assert read(files)[0] == expected
    write(
        tmp_path / "dt=2024-01-03" / f"0.{kind}", "user\nu\n" if kind == "csv" else '{"user": "u"}'
    )
    with pytest.raises(
        UsageError, match=r"has the partitions \['dt', 'country'\] and .* has \['dt'\]"
    ):
        TableFiles(tmp_path, "--events")


def test_parquet(tmp_path):
    first = parquet(tmp_path / "1.parquet", n=[1, 2], tags=[["a"], None], ok=[True, False])
    second = parquet(tmp_path / "2.pq", n=[2.5], more=["x"], tags=[["b", None]])
    files = TableFiles([first, second], "--items")
    assert files.format == "parquet"
    assert files.columns == {"n": "DOUBLE", "tags": "VARCHAR[]", "ok": "BOOLEAN", "more": "VARCHAR"}
    assert files.absent == {"ok": [second], "more": [first]}
    rows, bad = read(files)
    assert [row["n"] for row in rows] == [1.0, 2.0, 2.5]
    assert rows[2] == {"n": 2.5, "tags": ["b", None], "ok": None, "more": "x"}
    assert bad == []
    first.rename(tmp_path / "e")
    assert TableFiles(tmp_path / "e", "--items").format == "parquet"
    lists = parquet(tmp_path / "3.parquet", n=[[1]])
    with pytest.raises(
        UsageError, match=r"--items: column 'n' holds lists in one of .* and single"
    ):
        TableFiles([second, lists], "--items")


def test_json_lines(tmp_path):
    first = write(
        tmp_path / "1.jsonl",
        '{"id": 9007199254740993, "tags": [1, 2], "x": 1, "o": {"a": 1}}\n\n{"id": null}\noops {\n[1]\n',
    )
    second = write(
        tmp_path / "2.json.gz", '{"id": 5, "x": "a", "flag": true, "tags": [], "y": 0.5}'
    )
    files = TableFiles([first, second], "--events")
    assert files.format == "json"
    assert files.columns == {
        "id": "UBIGINT",
        "tags": "UBIGINT[]",
        "x": "VARCHAR",
        "o": "JSON",
        "flag": "BOOLEAN",
        "y": "DOUBLE",
    }
    assert files.absent["flag"] == [first]
    rows, bad = read(files)
    assert [row["id"] for row in rows] == [9007199254740993, None, 5]
    assert [row["tags"] for row in rows] == [[1, 2], None, []]
    assert [row["x"] for row in rows] == ["1", None, "a"]
    assert bad == [(4, NOT_JSON, "oops {"), (5, NOT_JSON, "[1]")]
    with pytest.raises(UsageError, match=r"is a JSON array; write one object per line"):
        TableFiles(write(tmp_path / "a.json", "[{}]"), "--events")


# What is refused at once.


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("e.csv", b"", "e.csv' is empty; leave it out, or write it again"),
        ("e.csv", b"\n\n", "has no header; write one, or give the names"),
        ("e.csv", b"uS\xffer,time\n", "the header is not UTF-8"),
        ("e.csv", "user\n".encode("utf-16"), "is UTF-16; convert the file"),
        (
            "e.csv",
            gzip.compress(b"user\n", mtime=0),
            "e.csv' is gzip; give it a name that ends in .gz",
        ),
        ("e.csv", b"user,item,user\n", "has column 'user' more than once; keep one"),
        ("e.csv", b"user,User\n", "columns 'user' and 'User' (in "),
        ("e.csv", b"user,__file\n", "has a column '__file', which is reserved"),
        ("e.csv", b"a,b\r\n1,2\n3,4\r\n", "has several kinds of line breaks (LF, CRLF, CR)"),
        ("e.parquet", b"user\nu1\n", "is it a whole Parquet file?"),
    ],
)
def test_a_file_that_is_refused(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match=re.escape(words)) as raised:
        TableFiles(tmp_path / name, "--events")
    assert "\n" not in str(raised.value)


def test_gzip_that_is_damaged(tmp_path):
    path = tmp_path / "e.csv.gz"
    whole = gzip.compress(CSV.encode() * 1000)
    for data, words in (
        (CSV.encode(), "is not a valid gzip file"),
        (whole[:-9], "the gzip data is truncated"),
        (whole + b"and more", "is not a valid gzip file"),
    ):
        path.write_bytes(data)
        with pytest.raises(UsageError, match=words):
            TableFiles(path, "--events")


def test_paths_that_hold_no_data(tmp_path):
    def refused(paths, words):
        with pytest.raises(UsageError, match=re.escape(words)):
            TableFiles(paths, "--events")

    refused(tmp_path / "e.csv", "--events: '")
    refused(tmp_path / "e.csv", "e.csv' does not exist; name a Parquet, CSV or JSON lines file")
    refused([], "--events: no files are named")
    refused(tmp_path, "holds no Parquet, CSV or JSON lines file; name another")
    write(tmp_path / "a.csv", "user\n")
    write(tmp_path / "notes.txt", "user\n")
    refused(tmp_path, "holds 'notes.txt', which is not a Parquet, CSV or JSON lines file; name the")
    (tmp_path / "notes.txt").unlink()
    parquet(tmp_path / "b.parquet", user=["u"])
    refused(tmp_path, "a.csv' is text and '")


def test_the_same_lines_are_bad_whatever_columns_are_read(tmp_path):
    path = write(tmp_path / "e.csv", b'a,b\n1,2\n3\n4,\xff\n5,"x"y\n,\n6,7\n')
    files = TableFiles(path, "--events", TextOptions(quoting=True))
    for what in ("count(*)", "count(a) + 1", "count(b) + 1", f"count({FILE})"):
        with duckdb.connect() as connection:
            rows = connection.execute(f"SELECT {what} FROM {files.scan()}").fetchall()
            assert rows == [(3,)]
            bad = files.bad_lines(connection)
            assert [(line, reason) for _, line, reason, _ in bad] == [
                (3, FIELDS),
                (4, NOT_UTF8),
                (5, OPEN_QUOTE),
            ]
