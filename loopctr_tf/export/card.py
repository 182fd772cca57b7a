"""The model card of an export: what the model is, takes and gives, for those who run or judge it."""

import importlib.metadata
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import yaml

from loopctr_tf.evaluation.report import depth_rows, metrics_table
from loopctr_tf.export.validity import check_mode
from loopctr_tf.export.warmup import signature_specs
from loopctr_tf.features.schema import Schema
from loopctr_tf.scoring.names import ENCODE_USER, STATE_VERSION
from loopctr_tf.version import __version__

FILE = "assets.extra/model_card.md"
LOOP_BLOCK = "loop_block"
"""In the name of every variable that a zero-loop export leaves out."""

_LIBRARIES = ("tensorflow", "tf-keras", "tensorflow-recommenders")
_BAD_INPUT = {
    "reject": "A request with a length that is negative or beyond the data, sequence fields of "
    "unequal length, or a number that is NaN or infinite fails with INVALID_ARGUMENT; the message "
    "names the feature. For servers that do not merge requests into batches.",
    "repair": "Lengths are clipped to the data, sequence fields are cut to the shortest, and a "
    "number that is NaN or infinite takes the feature's default. For servers that merge requests "
    "into batches, where one failed check would fail every request of the batch.",
}
_LIMITS = (
    "A probability is calibrated for traffic like the training rows'; watch the mean prediction "
    "beside the observed rate.",
    "An id that is in no vocabulary shares a row with other unknown ids; what a new id means is "
    "learned only by training again.",
    "Histories beyond the maximum length count with their most recent events alone.",
    "More loops than in training are extrapolation.",
    "A user's state serves this model at its own depth alone; `state_version` tells states apart.",
)


def model_card(
    model,
    functions: Mapping[str, Callable],
    *,
    metrics: Mapping[str, Any] | None = None,
    bad_input: str = "reject",
) -> str:
    """The card as Markdown, ending in a line break.

    Args:
      model: the exported model.
      functions: signature name -> its ConcreteFunction, as for
        :func:`loopctr_tf.export.warmup.warmup_requests`.
      metrics: the ``metrics.json`` of the run that the model is of, or any mapping whose ``valid`` or
        ``test`` are rows by depth, see :func:`loopctr_tf.evaluation.predict.head_metrics`. None
        says in the card that nothing was measured.
      bad_input: "reject" or "repair", as exported.

    Raises:
      UsageError: for another ``bad_input``.
    """
    settings = {"model": model.config.to_dict(), "execution": model.execution.to_dict()}
    sections = [
        f"# {type(model).__name__}",
        f"Predicts the probability that `{model.schema.label}` is 1 for a user and a candidate, from "
        f"the user's history.{_depths(model)}",
        "## Parameters",
        _parameters(model.weights),
        "## Figures",
        _figures(metrics or {}, model.loops_of(model.heads[-1]) or 0),
        "## Signatures",
        "R, B and N (requests, rows, candidates) are any number; T is any number of events, most "
        "recent last, right-padded. All inputs of a signature have the same first dimension.",
        _signatures(functions),
        *_states(functions),
        "## Bad input",
        f"`{check_mode(bad_input)}`: {_BAD_INPUT[bad_input]}",
        "## Features",
        _features(model.schema),
        "## Configuration",
        "```yaml\n" + yaml.safe_dump(settings, sort_keys=False) + "```",
        "## Limits",
        _list(_LIMITS),
        "## Made with",
        _list(f"{name} {version}" for name, version in _versions()),
    ]
    return "\n\n".join(sections) + "\n"


def _parameters(weights: Iterable[tf.Variable]) -> str:
    total = zero = 0
    for weight in weights:
        size = int(np.prod(weight.shape))
        total += size
        zero += 0 if LOOP_BLOCK in weight.name else size
    rows = [("all", total)]
    if zero < total:
        rows += [("read at zero loops", zero), ("Loop Block alone", total - zero)]
    return _table(("part", "parameters"), ((name, f"{size:,}") for name, size in rows))


def _figures(metrics: Mapping[str, Any], loops: int) -> str:
    parts = []
    for split, name in (("test", "Test"), ("valid", "Validation")):
        if split in metrics:
            parts.append(f"{name} split; exact metrics, GAUC as the plain mean over users.")
            parts.append(metrics_table(depth_rows(metrics[split], loops)))
    if parts and metrics.get("protocol"):
        parts.append(f"Protocol of the data: {metrics['protocol']}.")
    return "\n\n".join(parts) or "None were given with this export."


def _signatures(functions: Mapping[str, Callable]) -> str:
    rows = (
        (
            f"`{name}`",
            _tensors(signature_specs(function)),
            _tensors(function.structured_outputs),
        )
        for name, function in functions.items()
    )
    return _table(("signature", "inputs", "outputs"), rows)


def _states(functions: Mapping[str, Callable]) -> list[str]:
    """What a feature store has to keep for a user, or nothing where no signature encodes users."""
    rows = []
    for name, function in functions.items():
        if name.startswith(ENCODE_USER):
            tensors = [s for key, s in function.structured_outputs.items() if key != STATE_VERSION]
            size = sum(math.prod(s.shape[1:]) * s.dtype.size for s in tensors)
            rows.append((f"`{name}`", f"{size:,}"))
    if not rows:
        return []
    return ["## User states", _table(("signature", "bytes a user, and `state_version`"), rows)]


def _tensors(specs: Mapping[str, Any]) -> str:
    return "<br>".join(f"`{name}` {_type(spec)}" for name, spec in specs.items())


def _type(spec) -> str:
    sizes = ("any" if size is None else str(size) for size in spec.shape)
    return f"{spec.dtype.name} [{', '.join(sizes)}]"


def _features(schema: Schema) -> str:
    rows = [(f"`{f.name}`", f.type, f.side, _values(schema, f)) for f in schema.features]
    for sequence in schema.sequences:
        kind = f"at most {sequence.max_length} events{', compressed' if sequence.compress else ''}"
        rows.append((f"`{sequence.length_name}`", f"sequence, {kind}", "user", "0 or more"))
        rows += [(f"`{f.name}`", f.type, "user", _values(schema, f)) for f in sequence.fields]
    return _table(("input", "type", "side", "values"), rows)


def _values(schema: Schema, feature) -> str:
    if feature.table is None:
        return f"number, {feature.default:g} where missing"
    table = schema.table(feature.table)
    known = "hashed" if table.vocabulary is None else f"{len(table.vocabulary):,} known"
    most = f", at most {feature.max_values} a row" if feature.max_values else ""
    return f"{table.dtype}, {known}{most}"


def _versions() -> list[tuple[str, str]]:
    found = [("loopctr-tf", __version__)]
    return found + [(name, importlib.metadata.version(name)) for name in _LIBRARIES]


def _depths(model) -> str:
    loops = model.loops_of(model.heads[-1])
    if loops is None:
        return ""
    return (
        f" Trained with {loops} loop{'' if loops == 1 else 's'}; every depth from 0 loops up is a "
        "model of its own, and 0 is the cheapest."
    )


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [titles, ("---",) * len(titles), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
