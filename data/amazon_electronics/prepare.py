"""Amazon Electronics as a prepared data set: the publisher's reviews, or BARS's rows made of them.

Two protocols, which are never to be mixed in one table: "honest" validates on rows that are cut from
training, and keeps the most recent events; "bars" does as BARS: test.csv is validation too, and the
first 100 events are kept.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

# The modules that recipes share lie one folder up; what both Amazon recipes share, beside the other.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "amazon_5core"))

from amazon_raw import RULES, category_lists, find_reviews, write_items, write_reviews
from bars import FILES, PROTOCOLS, LongestHistory, prepare_bars
from recipe_command import recipe, report
from recipe_tables import Tables, prepare_tables

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema
from loopctr_tf.prepare.rejects import Rejects
from loopctr_tf.prepare.typed import WantedColumn

SCHEMA = Path(__file__).with_name("schema.yaml")
PUBLISHED = {"reviews": 1_689_188, "users": 192_403, "items": 63_001}
PUBLISHED_X1 = {"train": 2_608_764, "test": 384_806}
HISTORIES = ("item_history", "cate_history")
MAX_LENGTH = 100
"""``max_length`` of schema.yaml, and BARS's."""

WANTED = (
    WantedColumn("label", "binary", required=True),
    WantedColumn("user_id", "string", required=True),
    WantedColumn("item_id", "string", required=True),
    WantedColumn("cate_id", "string"),
    *(WantedColumn(name, "string", separator="^") for name in HISTORIES),
)

HONEST_RULE = (
    "test is test.csv, each user's last event; valid are the rows of train.csv with the longest history "
    "of their user, which is the last event but one; the rest is train, and all rows of a user whose "
    "histories in train.csv are of one length"
)
BARS_RULE = "test is test.csv, and valid is test.csv too: selecting on valid is selecting on test"


def prepare(
    raw: str | Path,
    out: str | Path,
    protocol: str = "honest",
    skip_bad: bool = False,
    workers: int | None = None,
    progress: bool = False,
) -> dict:
    """Writes the prepared folder ``out`` from the files in ``raw``.

    Args:
      raw: a folder with reviews_Electronics_5.json.gz and meta_Electronics.json.gz, or with train.csv
        and test.csv of AmazonElectronics_x1.
      out: must not exist; appears only when all of it is written.
      protocol: "honest", or "bars", which is of the x1 files.
      skip_bad: leave bad lines and rows out, and count them.
      workers: processes that write; None takes all cores.
      progress: show bars.

    Returns:
      What is in ``stats.json``.

    Raises:
      UsageError: for files that are absent or malformed, a protocol that they do not have, or an ``out``
        that exists.
    """
    raw = Path(raw)
    if protocol not in PROTOCOLS:
        raise UsageError(f"protocol is {protocol!r}; choose {' or '.join(PROTOCOLS)}")
    if not raw.is_dir():
        raise UsageError(f"raw folder {str(raw)!r} does not exist; name the one with the files")
    reviews = find_reviews(raw)
    x1 = all((raw / name).exists() for name in FILES.values())
    files = " and ".join(FILES.values())
    if x1 == (reviews is not None):
        raise UsageError(
            f"raw folder {str(raw)!r} has {'both' if x1 else 'neither'} reviews_NAME_5.json.gz with "
            f"meta_NAME.json.gz {'and' if x1 else 'nor'} {files}; name a folder with one of them"
        )
    settings = {"skip_bad": skip_bad, "workers": workers, "progress": progress}
    if x1:
        as_bars = protocol == "bars"
        facts = {
            "source": "BARS AmazonElectronics_x1",
            "split": BARS_RULE if as_bars else HONEST_RULE,
            "history": f"the {'first' if as_bars else 'most recent'} {MAX_LENGTH} events",
        }
        return prepare_bars(
            Schema.load(SCHEMA),
            raw,
            out,
            WANTED,
            protocol,
            valid=LongestHistory("user_id", "item_history"),
            keep_first=dict.fromkeys(HISTORIES, MAX_LENGTH),
            published=PUBLISHED_X1,
            facts=facts,
            **settings,
        )
    if protocol == "bars":
        raise UsageError(
            f"raw folder {str(raw)!r} holds reviews, and protocol bars is of the rows that BARS made "
            f"of them; give a folder with {files}, or take protocol honest"
        )
    return prepare_tables(SCHEMA, out, partial(_read_reviews, *reviews), facts=RULES, **settings)


def _read_reviews(reviews: Path, meta: Path, parts: Path, rejects: Rejects, progress) -> Tables:
    without = 0

    def last_category(item: dict[str, Any]) -> str | None:
        """DIN's rule: the last name of the last path."""
        nonlocal without
        paths = category_lists(item)
        without += not paths
        return paths[-1][-1] if paths else None

    events, items = parts / "events.parquet", parts / "items.parquet"
    wanted = write_reviews(reviews, events, rejects, progress)
    write_items(meta, items, wanted, pa.field("cate_id", pa.string()), last_category, rejects)
    facts = {"source": "Amazon Electronics 5-core 2014", "items_without_category": without}
    names = {events: reviews, items: meta}
    return Tables(events, items, names=names, facts=facts, published=PUBLISHED)


@recipe(
    "reviews_Electronics_5.json.gz and meta_Electronics.json.gz, or with train.csv and test.csv of "
    "AmazonElectronics_x1",
    protocol=True,
)
def main(out, **options):
    """Prepare Amazon Electronics: which item does a user review next?

    The protocol "bars" is of the x1 files alone, and keeps the first 100 events of a history.

    \b
    Examples:
      python data/amazon_electronics/prepare.py --raw ~/electronics --out build/electronics
      python data/amazon_electronics/prepare.py --raw ~/AmazonElectronics_x1 --out build/x1
      python data/amazon_electronics/prepare.py --raw ~/AmazonElectronics_x1 --out build/x1-bars \
          --protocol bars

    Never put figures of both protocols into one table. README.md beside this script explains the rules.
    """
    stats = prepare(out=out, **options, progress=True)
    report(out, stats, f"protocol {stats['protocol']}")


if __name__ == "__main__":
    main()
