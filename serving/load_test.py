"""A load test of any TensorFlow Serving gRPC endpoint that serves an export of this library.

Closed loop: each of C clients sends its next request when the last is answered. Open loop (`--rate`):
requests are due at a fixed rate, whether the server keeps up or not, and their latency counts from
when they were due, so that a stalled server cannot hide the requests that it kept from being sent.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# Before TensorFlow and gRPC load: what they would log is no news, or our own line says it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import click
import grpc
from traffic.loops import FIRST_S, Endpoint, measure
from traffic.messages import examples_request, predict_payload
from traffic.samples import ENCODE, EXAMPLE_SIGNATURES, RANK_CACHED, Sampler

from loopctr_tf.bench.tables import table
from loopctr_tf.cli.running import run_command
from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema
from loopctr_tf.files import json_text
from loopctr_tf.scoring import ScoringClient, ScoringError

DISTINCT = 16
"""Different requests that are sent in turn."""


def load_test(
    endpoint: Endpoint,
    signature: str,
    candidates: int = 500,
    history: int = 100,
    clients: Sequence[int] = (1, 4, 16),
    seconds: float = 30.0,
    rate: float | None = None,
    schema: Schema | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> dict:
    """Measures a signature.

    Args:
      endpoint: of the model.
      signature: its name.
      candidates: N of a ranking request (of one user), rows of a pointwise one.
      history: events of each sequence.
      clients: how many send at a time, for one measurement each.
      seconds: of each measurement.
      rate: requests a second over all clients, for the open loop; None for the closed one.
      schema: of the export, for known ids; ``classify`` and ``regress`` need it.
      seed: of the features.
      say: takes lines about progress.

    Returns:
      ``target``, ``model``, ``signature``, ``candidates``, ``history``, ``request_bytes``, ``rate``
      and ``runs``: one each number of ``clients``, as :func:`measure` gives it.

    Raises:
      UsageError: for an endpoint that does not answer, a model or signature that it does not serve,
        and sizes that cannot be.
    """
    _check_sizes(candidates, history, clients, seconds, rate)
    method = signature.capitalize() if signature in EXAMPLE_SIGNATURES else "Predict"
    try:
        with endpoint.client() as client:
            sampler = Sampler(client.signatures(), schema, seed)
            payloads = [
                _payload(client, endpoint.name, sampler, signature, candidates, history)
                for _ in range(DISTINCT)
            ]
    except ScoringError as error:
        # Of a server that does not answer, the client's own words tell what to check.
        remedy = "" if error.code is grpc.StatusCode.UNAVAILABLE else "; check --name"
        raise UsageError(f"{error}{remedy}") from error
    with endpoint.channel() as channel:
        call = endpoint.call(channel, method)
        for payload in payloads:
            try:
                call(payload, timeout=FIRST_S)
            except grpc.RpcError as error:
                raise UsageError(
                    f"{endpoint.target} refused a request of {signature!r} with "
                    f"{error.code().name} ({' '.join((error.details() or '').split())[:200]}); "
                    "choose another --signature or size"
                ) from error
    runs = []
    for count in clients:
        say(f"{count} clients, {seconds:g} s")
        found = measure(endpoint, method, payloads, count, seconds, rate)
        scored = 0 if signature.startswith(ENCODE) else candidates
        runs.append({**found, "candidates_per_s": scored * found["requests_per_s"]})
    return {
        "target": endpoint.target,
        "model": endpoint.name,
        "signature": signature,
        "candidates": candidates,
        "history": history,
        "request_bytes": sum(map(len, payloads)) // len(payloads),
        "rate": rate,
        "runs": runs,
    }


def _check_sizes(candidates, history, clients, seconds, rate) -> None:
    for name, value, least in (
        ("--candidates", candidates, 1),
        ("--history", history, 0),
        *(("--clients", count, 1) for count in clients),
    ):
        if value < least:
            raise UsageError(f"{name} is {value!r}; give {least} or more")
    for name, value in (("--seconds", seconds), ("--rate", rate)):
        if value is not None and not value > 0:
            raise UsageError(f"{name} is {value!r}; give a number above 0")


def _payload(
    client: ScoringClient,
    model: str,
    sampler: Sampler,
    signature: str,
    candidates: int,
    history: int,
) -> bytes:
    """A serialized request for one user, or for as many rows as candidates."""
    if signature in EXAMPLE_SIGNATURES:
        sampler.signature(signature)
        examples = sampler.examples(candidates, history)
        request = examples_request(signature.capitalize(), signature, examples, model)
        return request.SerializeToString()
    one_user = signature == "cascade" or signature.startswith(("rank_", ENCODE))
    rows = 1 if one_user else candidates
    arrays = sampler.features(signature, rows, candidates, history)
    if signature.startswith(RANK_CACHED):
        encode = ENCODE + signature.removeprefix(RANK_CACHED)
        user = sampler.features(encode, rows, candidates, history)
        arrays |= client.predict(user, signature=encode, timeout=FIRST_S)
    return predict_payload(signature, arrays, model)


def as_table(report: Mapping) -> str:
    """The report to read."""
    rows = [
        {
            **run,
            **{key: _figure(run[key]) for key in ("p50_ms", "p95_ms", "p99_ms")},
            "errors": ", ".join(f"{code} {n}" for code, n in sorted(run["errors"].items())) or "0",
        }
        for run in report["runs"]
    ]
    columns = {
        "clients": "{clients}",
        "p50 ms": "{p50_ms}",
        "p95 ms": "{p95_ms}",
        "p99 ms": "{p99_ms}",
        "requests/s": "{requests_per_s:,.1f}",
        "candidates/s": "{candidates_per_s:,.0f}",
        "errors": "{errors}",
    }
    loop = "closed loop"
    if report["rate"] is not None:
        loop = f"open loop, {report['rate']:g} requests/s"
        columns["not sent in time"] = "{unsent}"
    title = (
        f"{report['signature']} of {report['model']} at {report['target']}: "
        f"{report['candidates']} candidates, history {report['history']}, "
        f"{report['request_bytes']:,} bytes a request, {loop}"
    )
    return f"{title}\n\n{table(rows, columns)}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _clients(context, parameter, value: str) -> list[int]:
    try:
        return [int(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r}; give whole numbers such as 1,4,16") from None


def _metadata(context, parameter, values: Sequence[str]) -> list[tuple[str, str]]:
    pairs = [tuple(value.split("=", 1)) for value in values]
    if any(len(pair) != 2 for pair in pairs):
        raise click.BadParameter("give NAME=VALUE such as authorization='Bearer ...'")
    return pairs


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--target", default="127.0.0.1:8500", show_default=True, help="host:port of gRPC.")
@click.option("--name", default="loopctr", show_default=True, help="Model name.")
@click.option("--signature", default="rank_loop_0", show_default=True)
@click.option(
    "--candidates",
    default=500,
    show_default=True,
    help="Of a ranking request, for one user; rows of another request.",
)
@click.option("--history", default=100, show_default=True, help="Events of each sequence.")
@click.option(
    "--clients",
    default="1,4,16",
    show_default=True,
    callback=_clients,
    help="How many send at a time; a measurement each.",
)
@click.option("--seconds", default=30.0, show_default=True, help="Of a measurement.")
@click.option(
    "--rate",
    type=float,
    help="Requests a second over all clients, in an open loop. Give enough clients: each has one "
    "request under way.",
)
@click.option(
    "--schema",
    type=click.Path(path_type=Path),
    help="assets/schema.yaml of the export, for known ids; classify and regress need it.",
)
@click.option("--timeout", default=10.0, show_default=True, help="Seconds a call.")
@click.option("--tls", metavar="FILE", help="TLS, with a PEM file of authorities or `system`.")
@click.option(
    "--metadata",
    multiple=True,
    callback=_metadata,
    metavar="NAME=VALUE",
    help="Sent with every call. Repeatable.",
)
@click.option("--seed", default=0, show_default=True, help="Of the random features.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
def cli(
    target,
    name,
    signature,
    candidates,
    history,
    clients,
    seconds,
    rate,
    schema,
    timeout,
    tls,
    metadata,
    seed,
    as_json,
):
    """Load a TensorFlow Serving gRPC endpoint with random valid requests of one signature.

    Exit codes: 0 done, 2 something you gave is wrong, 1 a bug of ours.
    """
    endpoint = Endpoint(
        target,
        name,
        timeout,
        {None: False, "system": True}.get(tls, tls),
        metadata,
    )
    report = load_test(
        endpoint,
        signature,
        candidates,
        history,
        clients,
        seconds,
        rate,
        None if schema is None else Schema.load(schema),
        seed,
        say=lambda text: click.echo(text, err=True),
    )
    click.echo(json_text(report) if as_json else as_table(report))


def main() -> None:
    """Runs the script; a mistake of the caller is one line and exit code 2."""
    run_command(cli, "load_test.py")


if __name__ == "__main__":
    main()
