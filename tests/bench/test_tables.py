"""Tables are Markdown and aligned."""

from loopctr_tf.bench.tables import bytes_in_words, table


def test_numbers_stand_right_and_words_left():
    rows = [
        {"name": "short", "count": 7, "share": 0.5},
        {"name": "longer", "count": 1200, "share": 1},
    ]
    columns = "kind {name}; N {count:,}; share {share:.0%}"
    assert table(rows, columns) == (
        "| kind   |     N |   share |\n"
        "|:-------|------:|--------:|\n"
        "| short  |     7 |     50% |\n"
        "| longer | 1,200 |    100% |"
    )
    assert table([], columns).splitlines()[0].split() == ["|", "kind", "|", "N", "|", "share", "|"]


def test_sizes():
    assert [bytes_in_words(size * 2**20) for size in (3.4, 1023, 1024, 1500)] == [
        "3 MiB", "1,023 MiB", "1.0 GiB", "1.5 GiB",
    ]  # fmt: skip
