"""How fast `loopctr prepare` is, and how much memory it takes, as the events become more.

For each count the first so many events are prepared into a folder that is deleted afterwards. Seconds
are of the whole command, its start included; CPU seconds are those of all its processes. Memory is the
proportional set size (PSS) of all its processes together, read every 50 ms from Linux's /proc: a page
that processes share counts once.

    python benchmarks/prepare.py --schema schema.yaml --events events.parquet --counts 300000,1000000
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

COMMAND = (sys.executable, "-c", "from loopctr_tf.cli import main; main()", "prepare", "--quiet")


def processes(parent: int) -> list[int]:
    """A process and all that come from it."""
    try:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    except OSError:
        return []
    return [parent, *(one for child in children for one in processes(int(child)))]


def memory(parent: int) -> int:
    """Bytes of PSS of a process and all that come from it."""
    total = 0
    for process in processes(parent):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # It has just ended.
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def cpu_seconds() -> float:
    """Of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(command: list[str]) -> tuple[float, float, int]:
    """(seconds, CPU seconds, most bytes at a time) of a command, which must succeed."""
    start, used, most = time.perf_counter(), cpu_seconds(), 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            most = max(most, memory(process.pid))
            time.sleep(0.05)
    if process.returncode:
        sys.exit(process.returncode)
    return time.perf_counter() - start, cpu_seconds() - used, most


def cut(events: tuple[str, ...], count: int, path: Path) -> int:
    """Writes the first ``count`` events to a Parquet file; how many there were."""
    kind = "csv" if ".csv" in Path(events[0]).suffixes else "parquet"
    left = count
    writer = None
    for batch in ds.dataset(list(events), format=kind).to_batches():
        table = pa.Table.from_batches([batch.slice(0, left)])
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
        left -= len(table)
        if not left:
            break
    writer.close()
    return count - left


@click.command()
@click.option("--schema", required=True, help="schema.yaml with a section `build`.")
@click.option("--events", required=True, multiple=True, help="Parquet or CSV files.")
@click.option("--items", help="Table of items.")
@click.option("--users", help="Table of users.")
@click.option("--counts", default="300000,1000000,3000000", show_default=True, help="Events.")
@click.option("--workers", type=int, help="Processes; all cores where left out.")
@click.option("--work", type=click.Path(path_type=Path), help="Folder for what is written.")
def main(schema, events, items, users, counts, workers, work):
    """Measure `loopctr prepare` on the first events of a log."""
    click.echo("| events | rows | MB written | s | rows/s | CPU s | peak PSS, MB | bytes/row |")
    click.echo("|---|---|---|---|---|---|---|---|")
    for count in map(int, counts.split(",")):
        with tempfile.TemporaryDirectory(dir=work) as folder:
            path, out = Path(folder) / "events.parquet", Path(folder) / "prepared"
            found = cut(events, count, path)
            command = [*COMMAND, "--schema", schema, "--events", str(path), "--out", str(out)]
            for option, value in (("--items", items), ("--users", users), ("--workers", workers)):
                command += [] if value is None else [option, str(value)]
            seconds, used, most = measure(command)
            stats = json.loads((out / "stats.json").read_text())
            rows = sum(stats["rows"].values())
            written = sum(shard["bytes"] for shards in stats["shards"].values() for shard in shards)
        click.echo(
            f"| {found:,} | {rows:,} | {written / 1e6:,.0f} | {seconds:.1f} | {rows / seconds:,.0f} | "
            f"{used:.1f} | {most / 1e6:,.0f} | {most / rows:.0f} |"
        )


if __name__ == "__main__":
    main()
