"""MovieLens ratings as a prepared data set for click-through-rate prediction.

The rules, all ours: the label is 1 for four stars or more. A row's history has the user's events with a
strictly earlier timestamp, so that no event sees itself, another of the same second, or the future. Each
user's last ten events are the test split, the five before them validation, the others training.
Vocabularies and statistics come from the training split alone.
"""

import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# The modules that recipes share lie one folder up, wherever this script is run from.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from movielens_raw import Raw, fetch_raw, read_raw
from recipe_command import recipe, report
from recipe_tables import Tables, prepare_tables

from loopctr_tf.errors import UsageError

LIKE = 4.0
TEMPLATE = Path(__file__).with_name("schema.yaml")
FACTS = {
    "label": f"1 for a rating of {LIKE:g} or more",
    "split": "per user by time: the last 10 events are test, the 5 before them valid, the rest train; "
    "users with 15 events or fewer are all train",
}
UNEMPLOYED = "no occupation"
"""For the occupation "none", which would be read as a missing value."""


def prepare(
    raw: str | Path,
    out: str | Path,
    short: int = 50,
    long: int = 500,
    min_count: int = 1,
    shard_rows: int = 5000,
    progress: bool = False,
) -> dict[str, Any]:
    """Writes the prepared folder ``out`` from the MovieLens files in ``raw``.

    Args:
      raw: a folder in one of the layouts of :func:`movielens_raw.read_raw`.
      out: must not exist; appears only when complete.
      short: maximum events of ``history``, the most recent ones.
      long: maximum events of ``long_history``, those before them; 0 leaves that sequence out.
      min_count: values of fewer training events are unknown to the vocabularies.
      shard_rows: maximum rows of a TFRecord shard.
      progress: whether to show progress bars.

    Returns:
      The content of ``stats.json``.

    Raises:
      UsageError: for absent or malformed files, an existing ``out``, a bad number, or data in which no
        user has enough events to be tested.
    """
    least = {"short": 1, "long": 0, "min_count": 1, "shard_rows": 1}
    given = {"short": short, "long": long, "min_count": min_count, "shard_rows": shard_rows}
    for name, value in given.items():
        if value < least[name]:
            raise UsageError(f"{name} is {value!r}; give {least[name]} or more")

    def change(schema: dict[str, Any]) -> None:
        rules, lengths = schema["build"], {"history": short, "long_history": long}
        schema["sequences"] = [s for s in schema["sequences"] if lengths[s["name"]]]
        for sequence in schema["sequences"]:
            sequence["max_length"] = lengths[sequence["name"]]
        names = [sequence["name"] for sequence in schema["sequences"]]
        rules["sequences"] = {name: rules["sequences"][name] for name in names}
        fitted = [name for name, table in schema["tables"].items() if "vocabulary" in table]
        rules["tables"] = {name: {"min_count": min_count} for name in fitted}

    return prepare_tables(
        TEMPLATE,
        out,
        lambda folder, rejects, progress: write_tables(read_raw(raw), folder),
        change=change,
        facts=FACTS,
        workers=1,
        progress=progress,
        shard_rows=shard_rows,
    )


def write_tables(raw: Raw, folder: Path) -> Tables:
    """Writes ratings, movies and users as Parquet files into ``folder``."""
    tables = {
        "ratings": {
            "user_id": pa.array(raw.user_ids).take(pa.array(raw.user)),
            "movie_id": pa.array(raw.movie_ids).take(pa.array(raw.movie)),
            "timestamp": raw.timestamp,
            "rating": [f"{stars:g}" for stars in raw.stars],
            "label": (raw.stars >= LIKE).astype(np.int8),
            "genre_like_share": genre_like_share(raw),
        },
        "movies": {
            "movie_id": raw.movie_ids,
            "genres": pa.array(raw.genres, pa.list_(pa.string())),
            "year": raw.year,
        },
        "users": {
            "user_id": raw.user_ids,
            "age": raw.age,
            "gender": raw.gender,
            "occupation": [UNEMPLOYED if name == "none" else name for name in raw.occupation],
            "zip_prefix": [zip_code[:3] for zip_code in raw.zip_code],
        },
    }
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    facts = {
        "source": f"MovieLens ({raw.layout} layout)",
        "items_without_year": int(np.isnan(raw.year[np.unique(raw.movie)]).sum()),
    }
    events, items, users = (folder / f"{name}.parquet" for name in tables)
    return Tables(events, items, users, facts=facts)


def genre_like_share(raw: Raw) -> np.ndarray:
    """For every rating: the share of the user's earlier likes with a genre of its movie; [ratings].

    0 for a user without earlier likes.
    """
    names = sorted({name for genres in raw.genres for name in genres})
    has = np.array([[name in genres for name in names] for genres in raw.genres], np.float32)
    share = np.zeros(len(raw.user))
    order = np.argsort(raw.user, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(raw.user[order])) + 1):
        of_user, time = has[raw.movie[rows]], raw.timestamp[rows]  # [events, genres], [events]
        alike = of_user @ of_user.T > 0  # [events, events]
        liked = (time < time[:, None]) & (raw.stars[rows] >= LIKE)
        share[rows] = (liked & alike).sum(axis=1) / np.maximum(liked.sum(axis=1), 1)
    return share


@recipe(min_count=1, files=False)
@click.option(
    "--raw",
    type=click.Path(path_type=Path),
    help="Folder with MovieLens-100K or -1M as GroupLens publishes it, or with RecBole's atomic "
    "files. Without it, MovieLens-100K is taken out of the PyPI wheel recbole==1.2.1, which is "
    "downloaded and not installed.",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    default=Path("build/raw"),
    show_default=True,
    help="Folder that keeps the download for the next time.",
)
@click.option("--short", default=50, show_default=True, help="Most recent events, as `history`.")
@click.option(
    "--long",
    default=500,
    show_default=True,
    help="Events before those, as `long_history`; 0 leaves that sequence out.",
)
def main(out, raw, cache, **options):
    """Prepare MovieLens: who likes which movie, with each user's past.

    Label: 4 stars or more. History: only events that are strictly earlier than the row. Split by
    time per user: the last 10 events are test, the 5 before them validation.

    \b
    Examples:
      python data/movielens/prepare.py --out build/prepared
      python data/movielens/prepare.py --raw ~/ml-1m --out build/ml-1m --short 100

    Read it with loopctr_tf.read_dataset("build/prepared/train"); README.md beside this script
    describes the columns.
    """
    stats = prepare(raw or fetch_raw(cache), out, **options, progress=True)
    report(out, stats, f"{stats['users']:,} users, {stats['items']:,} movies")


if __name__ == "__main__":
    main()
