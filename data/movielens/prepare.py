"""MovieLens ratings as a prepared data set for click-through-rate prediction.

The rules, all ours: the label is 1 for four stars or more. A row's history holds the user's events
with a strictly earlier timestamp, so that no event sees itself, another of the same second, or the
future. Each user's last ten events are the test split, the five before them validation, the others
training. Vocabularies and statistics come from the training split alone.
"""

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pyarrow as pa
from tqdm import tqdm

# recipe_command.py lies one folder up, wherever this script is run from.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from movielens_raw import Raw, fetch_raw, read_raw
from recipe_command import OUT, Recipe, min_count_option, report

from loopctr_tf.errors import UsageError
from loopctr_tf.features.prepared import SPLITS, PreparedWriter
from loopctr_tf.features.schema import Schema
from loopctr_tf.files import new_folder

LIKE = 4.0
TEST_EVENTS, VALID_EVENTS = 10, 5
SPLIT_RULE = (
    f"per user by time: the last {TEST_EVENTS} events are test, the {VALID_EVENTS} before them "
    f"valid, the rest train; users with {TEST_EVENTS + VALID_EVENTS} events or fewer are all train"
)
TEMPLATE = Path(__file__).with_name("schema.yaml")


class Events:
    """All ratings sorted by user, then time, then place in the file; a row is a position in them.

    Attributes:
      user, movie: int64 [n], positions in the tables of ``raw``.
      stars, timestamp: float64 [n].
      label: float32 [n], 1 for a like.
      start: int64 [n], the first event of the row's user.
      before: int64 [n]; events ``start:before`` are those of the user with an earlier timestamp.
      split: int64 [n], an index of ``SPLITS``.
      by_time: int64 [n], all rows in the order of time over all users.
    """

    def __init__(self, raw: Raw):
        self.raw = raw
        order = np.lexsort((raw.timestamp, raw.user))
        self.user, self.movie = raw.user[order], raw.movie[order]
        self.stars, self.timestamp = raw.stars[order], raw.timestamp[order]
        self.label = (self.stars >= LIKE).astype(np.float32)
        rows = np.arange(len(order))
        new_user = np.diff(self.user, prepend=-1) != 0
        new_time = new_user | (np.diff(self.timestamp, prepend=-1) != 0)
        self.start = np.maximum.accumulate(np.where(new_user, rows, 0))
        self.before = np.maximum.accumulate(np.where(new_time, rows, 0))
        self.split = _splits(self.start)
        self.by_time = np.lexsort((order, self.timestamp))
        self.genre_like_share = _genre_like_share(self)
        # What lists are cut from, one value an event.
        self._movie_ids = _pick(raw.movie_ids, self.movie)
        self._genres = _pick(pa.array(raw.genres, pa.list_(pa.string())), self.movie)
        self._stars = pa.array(_stars(self.stars))

    def frame(self, rows: np.ndarray, short: int, long: int) -> pd.DataFrame:
        """The columns of ``schema.yaml`` for ``rows``, lists as Arrow columns.

        Args:
          rows: int64 [rows].
          short, long: most events of ``history`` and ``long_history``.
        """
        raw, user = self.raw, self.user[rows]
        start, end = self.start[rows], self.before[rows]
        recent = np.maximum(start, end - short)
        older = np.maximum(start, recent - long)
        columns = {
            "user_id": _pick(raw.user_ids, user),
            "label": self.label[rows],
            "age": raw.age[user],
            "gender": _pick(raw.gender, user),
            "occupation": _pick(raw.occupation, user),
            "zip_prefix": _pick([zip_code[:3] for zip_code in raw.zip_code], user),
            "movie_id": _pick(self._movie_ids, rows),
            "genres": _pick(self._genres, rows),
            "year": raw.year[self.movie[rows]],
            "genre_like_share": self.genre_like_share[rows],
            "history_movie_id": _spans(self._movie_ids, recent, end),
            "history_genres": _spans(self._genres, recent, end),
            "history_rating": _spans(self._stars, recent, end),
            "long_history_movie_id": _spans(self._movie_ids, older, recent),
            "long_history_rating": _spans(self._stars, older, recent),
        }
        return pa.table(columns).to_pandas(types_mapper=pd.ArrowDtype)


def _splits(start: np.ndarray) -> np.ndarray:
    """The split of every event, by its distance from the user's last one."""
    rows = np.arange(len(start))
    count = np.bincount(start, minlength=len(start))[start]
    from_end = start + count - 1 - rows
    split = np.full(len(start), SPLITS.index("train"))
    split[from_end < TEST_EVENTS + VALID_EVENTS] = SPLITS.index("valid")
    split[from_end < TEST_EVENTS] = SPLITS.index("test")
    split[count <= TEST_EVENTS + VALID_EVENTS] = SPLITS.index("train")
    return split


def _genre_like_share(events: Events) -> np.ndarray:
    """For every event: the share of the user's earlier likes with a genre of its movie; [n].

    0 for a user without earlier likes.
    """
    names = sorted({name for genres in events.raw.genres for name in genres})
    has = np.array([[name in genres for name in names] for genres in events.raw.genres], np.float32)
    share = np.zeros(len(events.label))
    starts = np.unique(events.start)
    for start, end in zip(starts, [*starts[1:], len(share)], strict=True):
        of_user = has[events.movie[start:end]]  # [events, genres]
        alike = of_user @ of_user.T > 0  # [events, events]
        earlier = np.arange(end - start) < events.before[start:end, None] - start
        liked = earlier & (events.label[start:end] == 1)
        likes = liked.sum(axis=1)
        share[start:end] = (liked & alike).sum(axis=1) / np.maximum(likes, 1)
    return share


def _pick(values: list[str] | pa.Array, positions: np.ndarray) -> pa.Array:
    """``values[positions]`` as an Arrow array."""
    values = values if isinstance(values, pa.Array) else pa.array(values, pa.string())
    return values.take(pa.array(positions))


def _spans(values: pa.Array, start: np.ndarray, end: np.ndarray) -> pa.ListArray:
    """The lists ``values[start[i]:end[i]]``."""
    lengths = end - start
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    index = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], lengths)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), _pick(values, index))


def _stars(stars: np.ndarray) -> list[str]:
    names = {value: f"{value:g}" for value in np.unique(stars)}
    return [names[value] for value in stars]


def fitted_schema(events: Events, short: int, long: int, min_count: int) -> Schema:
    """``schema.yaml`` with vocabularies and statistics of the training rows.

    Args:
      events: of which the training split is read.
      short, long: most events of the two sequences; no ``long_history`` where ``long`` is 0.
      min_count: values in fewer training rows are left out of the vocabularies.
    """
    raw, train = events.raw, events.split == SPLITS.index("train")
    user, movie = events.user[train], events.movie[train]
    values = {
        "movie": (raw.movie_ids[m] for m in movie),
        "genre": (name for m in movie for name in raw.genres[m]),
        "gender": (raw.gender[u] for u in user),
        "occupation": (raw.occupation[u] for u in user),
        "rating": _stars(events.stars[train]),
    }
    numbers = {
        "age": raw.age[user],
        "year": raw.year[movie],
        "genre_like_share": events.genre_like_share[train],
    }
    schema = Schema.load(TEMPLATE)
    lengths = {"history": short, "long_history": long}
    return schema.replace(
        tables=[
            table.replace(vocabulary=_vocabulary(values[table.name], min_count))
            if table.vocabulary is not None
            else table
            for table in schema.tables
        ],
        features=[
            feature.replace(**_statistics(numbers[feature.name]))
            if feature.type == "numeric"
            else feature
            for feature in schema.features
        ],
        sequences=[
            sequence.replace(max_length=lengths[sequence.name])
            for sequence in schema.sequences
            if lengths[sequence.name]
        ],
    )


def _vocabulary(values: Iterable[str], min_count: int) -> tuple[str, ...]:
    counts = Counter(values)
    kept = [value for value in counts if counts[value] >= min_count]
    return tuple(sorted(kept, key=lambda value: (-counts[value], value)))


def _statistics(values: np.ndarray) -> dict[str, float]:
    """Mean and deviation of the numbers that are there; a constant keeps its scale."""
    values = values[~np.isnan(values)]
    mean = float(values.mean()) if len(values) else 0.0
    return {
        "mean": mean,
        "std": float(values.std()) or 1.0 if len(values) else 1.0,
        "default": mean,
    }


def prepare(
    raw: str | Path,
    out: str | Path,
    short: int = 50,
    long: int = 500,
    min_count: int = 1,
    shard_rows: int = 5000,
    progress: bool = False,
) -> dict:
    """Writes the prepared folder ``out`` from the MovieLens files in ``raw``.

    Args:
      raw: a folder in one of the layouts of :func:`movielens_raw.read_raw`.
      out: must not exist; appears only when all of it is written.
      short: most events of ``history``, the most recent ones.
      long: most events of ``long_history``, those before them; 0 leaves that sequence out.
      min_count: values in fewer training rows are unknown to the vocabularies.
      shard_rows: rows a TFRecord shard.
      progress: show a bar with rows per second.

    Returns:
      What is in ``stats.json``.

    Raises:
      UsageError: for files that are absent or malformed, an ``out`` that exists, a bad number, or
        data in which no user has enough events to be tested.
    """
    least = {"short": 1, "long": 0, "min_count": 1, "shard_rows": 1}
    given = {"short": short, "long": long, "min_count": min_count, "shard_rows": shard_rows}
    for name, value in given.items():
        if value < least[name]:
            raise UsageError(f"{name} is {value!r}; give {least[name]} or more")
    with new_folder(out) as folder:
        events = Events(read_raw(raw))
        if not (events.split == SPLITS.index("test")).any():
            raise UsageError(
                f"no user in {str(raw)!r} has more than {TEST_EVENTS + VALID_EVENTS} ratings, so "
                "that nothing is left to test; give more ratings"
            )
        schema = fitted_schema(events, short, long, min_count)
        writer = PreparedWriter(folder, schema, shard_rows)
        with tqdm(total=len(events.label), unit=" rows", disable=not progress) as bar:
            for index, split in enumerate(SPLITS):
                rows = events.by_time[events.split[events.by_time] == index]
                for start in range(0, len(rows), shard_rows):
                    frame = events.frame(rows[start : start + shard_rows], short, long)
                    writer.write(split, frame, progress=bar.update)
        return writer.finish(**_facts(events, short, long))


def _facts(events: Events, short: int, long: int) -> dict:
    raw, past = events.raw, events.before - events.start
    recent = np.minimum(past, short)
    older = np.minimum(past - recent, long)
    counts = np.bincount(events.user, minlength=len(raw.user_ids))
    return {
        "source": f"MovieLens ({raw.layout} layout)",
        "users": int((counts > 0).sum()),
        "items": len(np.unique(events.movie)),
        "users_all_train": int(((counts > 0) & (counts <= TEST_EVENTS + VALID_EVENTS)).sum()),
        "items_without_year": int(np.isnan(raw.year[np.unique(events.movie)]).sum()),
        "ctr": {
            split: float(events.label[events.split == index].mean(dtype=np.float64))
            for index, split in enumerate(SPLITS)
        },
        "history_length": {
            "all_earlier": {"mean": float(past.mean()), "max": int(past.max())},
            "history": {"mean": float(recent.mean()), "max": int(recent.max())},
            "long_history": {"mean": float(older.mean()), "max": int(older.max())},
        },
        "label": f"1 for a rating of {LIKE:g} or more",
        "split": SPLIT_RULE,
        "protocol": "honest",
    }


@click.command(cls=Recipe)
@OUT
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
@min_count_option(1)
def main(out, raw, cache, short, long, min_count):
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
    stats = prepare(raw or fetch_raw(cache), out, short, long, min_count, progress=True)
    report(out, stats, f"{stats['users']:,} users, {stats['items']:,} movies")


if __name__ == "__main__":
    main()
