"""Amazon reviews of one category as a prepared data set: what a user reviews next, against a sample.

The rules, of which the negatives are DIN's: every review is a positive, whatever its stars, with one
sampled item that its user never had. A row's history holds the user's strictly earlier events. Each
user's last event is the test split, the one before it validation, the others training.
"""

import sys
from pathlib import Path

# The modules that recipes share lie one folder up, wherever this script is run from.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from amazon_raw import RULES
from five_core_tables import find_layout
from recipe_command import recipe, report
from recipe_tables import prepare_tables

SCHEMA = Path(__file__).with_name("schema.yaml")


def prepare(
    raw: str | Path,
    out: str | Path,
    skip_bad: bool = False,
    workers: int | None = None,
    progress: bool = False,
) -> dict:
    """Writes the prepared folder ``out`` from the files in ``raw``.

    Args:
      raw: a folder in one of the layouts of :func:`five_core_tables.find_layout`.
      out: must not exist; appears only when all of it is written.
      skip_bad: leave bad lines and rows out, and count them.
      workers: processes that write; None takes all cores.
      progress: show bars.

    Returns:
      What is in ``stats.json``.

    Raises:
      UsageError: for files that are absent or malformed, or an ``out`` that exists.
    """
    return prepare_tables(
        SCHEMA,
        out,
        find_layout(raw),
        facts=RULES,
        skip_bad=skip_bad,
        workers=workers,
        progress=progress,
    )


@recipe("reviews_NAME_5.json.gz and meta_NAME.json.gz, or the Grocery or Sports files")
def main(out, **options):
    """Prepare Amazon 5-core reviews: which item does a user review next?

    Positives are all reviews; each has one sampled item that its user never had. Split per user: the
    last event is test, the one before it validation.

    \b
    Example:
      python data/amazon_5core/prepare.py --raw ~/amazon-beauty --out build/beauty

    README.md beside this script describes the columns.
    """
    stats = prepare(out=out, **options, progress=True)
    report(out, stats, f"{stats['users']:,} users, {stats['items']:,} items")


if __name__ == "__main__":
    main()
