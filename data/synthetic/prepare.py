"""A simulated shop as a prepared data set whose best possible figures are known, or as an event log.

Every row's click is drawn with a probability that is a fixed function of the row's own columns, its
histories above all (``synthetic_truth``). So the AUC, GAUC and NE of the true probabilities are the best
that any model can reach, up to chance, and stats.json holds them.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq

# The modules that recipes share lie one folder up, wherever this script is run from.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipe_command import WORKERS, Recipe, report
from synthetic_columns import ColumnMaker
from synthetic_shards import BlockWriter, Collected
from synthetic_users import simulate
from synthetic_world import Options, World
from tqdm import tqdm

from loopctr_tf.errors import UsageError
from loopctr_tf.files import new_folder, require_new
from loopctr_tf.prepare.workers import worker_count

SPLIT_RULE = (
    "by time: the last of nine days is test, the one before it valid, the seven before train"
)


def prepare(
    out: str | Path, options: Options, workers: int | None = None, progress: bool = False
) -> dict:
    """Writes the prepared folder ``out``, and beside the splits the true probabilities in `truth/`.

    Memory grows by four bytes a row of valid and test, and the bytes do not depend on ``workers``.

    Args:
      out: must not exist; appears only when all of it is written.
      options: what is simulated.
      workers: processes; None takes all cores.
      progress: show a bar with rows per second.

    Returns:
      What is in ``stats.json``.

    Raises:
      UsageError: for an ``out`` that exists, or a number of workers below one.
    """
    workers = worker_count(workers)
    with new_folder(out) as folder:
        blocks = BlockWriter(folder, options)
        collected = Collected(folder, blocks)
        with _bar("writing", options, progress) as bar:
            for written in in_order(blocks.write, options.blocks, workers):
                bar.update(collected.add(written))
        return collected.finish(
            source="synthetic",
            users=options.users,
            items=options.items,
            options=dataclasses.asdict(options),
            split=SPLIT_RULE,
        )


def write_events(
    out: str | Path, options: Options, workers: int | None = None, progress: bool = False
) -> dict[str, int]:
    """Writes the same simulation as a plain log, as a team of its own would have it, into ``out``.

    `events/` and `users/` hold one Parquet file a block, `items.parquet` all items, and `truth/` the
    probability of every impression, apart from what a model may read.

    Args, errors: as of :func:`prepare`.

    Returns:
      Numbers of "events" and of "impressions".
    """
    workers = worker_count(workers)
    totals = {"events": 0, "impressions": 0}
    with new_folder(out) as folder:
        maker = ColumnMaker(World(options))
        for name in ("events", "users", "truth"):
            (folder / name).mkdir()
        pq.write_table(maker.items(), folder / "items.parquet")

        def write(number: int) -> tuple[int, int]:
            block = simulate(maker.world, options, number)
            tables = {
                "events": maker.events(block),
                "users": maker.users(block.users),
                "truth": maker.truth(block),
            }
            for name, table in tables.items():
                pq.write_table(table, folder / name / f"part-{number:05d}.parquet")
            return len(tables["events"]), len(tables["truth"])

        with _bar("events", options, progress) as bar:
            for events, impressions in in_order(write, options.blocks, workers):
                totals["events"] += events
                totals["impressions"] += impressions
                bar.update(impressions)
    return totals


def in_order(work: Callable[[int], Any], count: int, workers: int) -> Iterator[Any]:
    """``work`` of the numbers below ``count``, in their order, by forked processes."""
    if workers == 1:
        yield from map(work, range(count))
        return
    pool = ProcessPoolExecutor(workers, get_context("fork"), _start, (work,))
    try:
        yield from pool.map(_work, range(count))
    except BrokenProcessPool as error:
        raise UsageError(
            "a worker was killed, most often for lack of memory; give fewer --workers, or more memory"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_job: Callable[[int], Any] | None = None


def _start(work: Callable[[int], Any]) -> None:
    """Begins a worker, which shares the memory of ``work``."""
    global _job
    _job = work


def _work(number: int) -> Any:
    return _job(number)


def _bar(what: str, options: Options, show: bool) -> tqdm:
    return tqdm(desc=what, total=options.rows, unit=" rows", disable=not show)


def _option(name: str, text: str, **settings):
    return click.option(f"--{name}", type=int, show_default=True, help=text, **settings)


DEFAULTS = Options()


@click.command(cls=Recipe)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Prepared folder to write; must not exist."
)
@click.option(
    "--events",
    type=click.Path(path_type=Path),
    help="Folder to write a plain event log to, with tables of items and users; must not exist.",
)
@_option("rows", "Impressions in the nine days.", default=DEFAULTS.rows)
@_option("users", "Users, each with a row at least.", default=DEFAULTS.users)
@_option("items", "Items on sale; memory grows with them.", default=DEFAULTS.items)
@_option("short", "Most recent events, as `history`.", default=DEFAULTS.short)
@_option("long", "Events before those, as `long_history`.", default=DEFAULTS.long)
@_option("seed", "Of all random numbers.", default=DEFAULTS.seed)
@WORKERS
def main(out, events, workers, **numbers):
    """Prepare synthetic clicks of which the best possible AUC, GAUC and NE are known.

    Histories hold only events before the row. Split by time: of nine days the last is test, the one
    before it validation. The click probability of every row is known, and kept apart in truth/.

    \b
    Examples:
      python data/synthetic/prepare.py --out build/synthetic
      python data/synthetic/prepare.py --out build/small --rows 60000 --users 6000 --short 20 --long 100
      python data/synthetic/prepare.py --events build/log --rows 1000000 --users 100000

    README.md beside this script describes the columns.
    """
    options = Options(**numbers)
    if out is None and events is None:
        raise UsageError("neither --out nor --events is given; name a folder to write to")
    for path in (out, events):
        if path is not None:
            require_new(path)
    if out is not None:
        stats = prepare(out, options, workers, progress=True)
        best = stats["best"]["test"]
        figures = (f"{name.upper()} {_figure(best[name])}" for name in ("auc", "gauc", "ne"))
        report(out, stats, "best possible on test: " + ", ".join(figures))
    if events is not None:
        totals = write_events(events, options, workers, progress=True)
        click.echo(f"{events}: {totals['events']:,} events, {totals['impressions']:,} impressions")


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    main()
