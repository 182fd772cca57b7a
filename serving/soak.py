"""A soak of the embedded server: good and hostile requests while versions come and go.

Starts `loopctr serve` in a process of its own, asks it every request once in quiet, then all of them
at random from several threads while two exports take turns as the newest version and broken ones
turn up between. Every answer is compared with what the same export answered in quiet (and that with
what TensorFlow gives without a server), every refusal with its status and its words.
"""

import dataclasses
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# Before TensorFlow and gRPC load: what they would log is no news, or our own line says it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import click
import numpy as np
from traffic.bad_examples import bad_example_cases
from traffic.cases import ROUGH, Answer, Case, Code, read_outputs, response_of
from traffic.clients import Account, Sender, Traffic
from traffic.good import LISTS, ROWS, good_cases
from traffic.hostile import abandoned_cases, hostile_cases
from traffic.references import Reference
from traffic.reports import markdown, summary
from traffic.samples import Sampler
from traffic.server import Server
from traffic.swaps import LABELS, Swaps, Watch
from traffic.versions import Versions

from loopctr_tf.cli.running import run_command
from loopctr_tf.errors import UsageError
from loopctr_tf.files import json_text


def make_cases(
    exports: Mapping[str, Path], seed: int = 0, rows: tuple = ROWS, lists: tuple = LISTS
) -> list[Case]:
    """Every request of the soak, with what has to come back.

    Args:
      exports: name -> folder of an export that rejects bad input.
      seed: of the features.
      rows, lists: sizes of good requests, see :mod:`traffic.good`.

    Raises:
      UsageError: for folders that are no exports, or of which an answer would not tell which gave it.
    """
    references = {label: Reference(path) for label, path in exports.items()}
    first, *others = references.values()
    for other in others:
        if other.schema != first.schema:
            raise UsageError("the exports have different schemas; give two of one schema")
    names = sorted(set.intersection(*(set(r.signatures) for r in references.values())))
    sampler = Sampler(first.signatures, first.schema, seed)
    good = list(good_cases(references, sampler, names, rows, lists))
    check_distinct(good)
    shared = (tuple(references), sampler, first.schema, names)
    return [*good, *hostile_cases(*shared), *bad_example_cases(*shared)]


def check_distinct(cases: Sequence[Case]) -> None:
    """Refuses exports whose answers are the same: one given by the wrong version would pass."""
    for case in cases:
        if case.kind != "serving_default":
            continue
        first, *others = case.answers.values()
        for other in others:
            if first.outputs["probability"].size and np.allclose(
                first.outputs["probability"], other.outputs["probability"], rtol=0, atol=1e-3
            ):
                raise UsageError(
                    "the exports answer alike, so that nobody could tell which of them did; give "
                    "two with other weights"
                )


def soak(
    exports: Mapping[str, Path],
    cases: Sequence[Case],
    seconds: float,
    clients: int,
    pause_s: float = 5.0,
    think_s: float = 0.1,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> dict:
    """Runs the soak.

    Args:
      exports: "A" and "B" -> folder of an export.
      cases: what to send, from :func:`make_cases`.
      seconds: of mixed requests.
      clients: threads that send.
      pause_s: seconds between one change in the versions and the next.
      think_s: mean pause of a client between two requests.
      seed: of the order of requests.
      say: takes lines about progress.

    Returns:
      The report, see :func:`traffic.reports.summary`; its ``problems`` are empty when all was right.

    Raises:
      UsageError: when the server does not start.
    """
    work = Path(tempfile.mkdtemp(prefix="soak-"))
    account, quiet = Account(), Account()
    memory = {}
    try:
        versions = Versions(work / "models", exports)
        versions.publish(LABELS[0])
        with Server(work / "models", work / "server.log") as server:
            memory["start"] = server.memory_mb()
            say(f"version 1 is served at {server.target}; each request alone")
            swaps = Swaps(server, versions, pause_s)
            cases = _asked(server, versions, quiet, cases, LABELS[0])
            for label in LABELS[1:]:
                swaps.swap(label)
                cases = _asked(server, versions, quiet, cases, label)
            swaps.seconds.clear()
            memory["warm"] = server.memory_mb()
            cases = [*cases, *abandoned_cases(case for case in cases if case.good)]
            say(f"{quiet.wrong.total()} of them wrong; {seconds:.0f} s of all together")
            with (
                Watch(server, swaps) as watch,
                Traffic(server, versions, account, cases, clients, think_s, seed),
            ):
                swaps.run(time.monotonic() + seconds)
            died = server.ended
            memory["end"] = server.memory_mb()
            if died is None:
                swaps.begin(LABELS[0])  # to stop is hardest while a version loads
            exit_code = server.stop()
            log = server.log()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return summary(
        account=account,
        quiet=quiet,
        memory=memory,
        samples=watch.memory,
        swaps=swaps.seconds,
        refused=swaps.refused,
        checks=watch.checks,
        problems=[*swaps.problems, *watch.problems],
        died=died,
        exit_code=exit_code,
        log=log,
        settings={
            "seconds": seconds,
            "clients": clients,
            "pause_s": pause_s,
            "think_s": think_s,
            "seed": seed,
        },
    )


def _asked(
    server: Server, versions: Versions, account: Account, cases: Sequence[Case], label: str
) -> list[Case]:
    """Sends each case alone, and takes what this export answers for what it has to answer later."""
    sender = Sender(server.target, versions, account)
    found = []
    for case in cases:
        reply = sender.send(case, tolerance=ROUGH)
        if reply.code is Code.OK and case.answers[label].outputs is not None:
            outputs = read_outputs(response_of(case, reply))
            answers = {**case.answers, label: Answer(outputs=outputs)}
            case = dataclasses.replace(case, answers=answers)
        found.append(case)
    sender.close()
    return found


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("export_a", type=click.Path(path_type=Path))
@click.argument("export_b", type=click.Path(path_type=Path))
@click.option("--seconds", default=300.0, show_default=True, help="Of mixed requests.")
@click.option("--clients", type=click.IntRange(1), default=6, show_default=True)
@click.option(
    "--pause", default=5.0, show_default=True, help="Seconds between changes in the versions."
)
@click.option(
    "--think-ms", default=100.0, show_default=True, help="Mean pause of a client after a request."
)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
def cli(export_a, export_b, seconds, clients, pause, think_ms, seed, as_json):
    """Soak the embedded server with EXPORT_A and EXPORT_B as versions that take turns.

    Both are folders that `loopctr export` made, of one schema, with other weights, and with the
    default --bad-input reject.

    Exit codes: 0 all was right, 1 something was wrong (the report says what), 2 something you gave is.
    """
    exports = dict(zip(LABELS, (export_a, export_b), strict=True))

    def say(text):
        click.echo(text, err=True)

    say("making requests")
    cases = make_cases(exports, seed)
    report = soak(exports, cases, seconds, clients, pause, think_ms / 1e3, seed, say)
    click.echo(json_text(report) if as_json else markdown(report))
    sys.exit(1 if report["problems"] else 0)


def main() -> None:
    """Runs the script; a mistake of the caller is one line and exit code 2."""
    run_command(cli, "soak.py")


if __name__ == "__main__":
    # The server, a process of its own, must not outlive a soak that is told to end.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    main()
