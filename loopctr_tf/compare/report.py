"""A comparison as Markdown, JSON and plots."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loopctr_tf.compare.results import FIGURES
from loopctr_tf.evaluation.plots import tradeoff_plot
from loopctr_tf.evaluation.report import markdown_table
from loopctr_tf.files import write_json

RESULTS = "results.json"
REPORT = "results.md"
_PLOTS = {
    "auc_by_flops.png": ("flops", 1e6, "FLOPs a sample (millions)"),
    "auc_by_latency.png": ("p50_ms", 1, "latency of a batch (ms, median)"),
}


def write(out: Path, results: Mapping[str, Any]) -> str:
    """Writes ``results.json``, ``results.md`` and the plots to ``out``; returns the Markdown."""
    write_json(out / RESULTS, results)
    parts = _sections(results)
    drawn = [head for head in results["heads"] if head["kind"] == "system" and "flops" in head]
    for name, (key, unit, label) in _PLOTS.items() if drawn else ():
        points = [
            (h["label"], h[key] / unit, h["auc"]["mean"], h["auc"]["deviation"]) for h in drawn
        ]
        tradeoff_plot(out / name, points, label, "test AUC")
        parts.append(f"![test AUC against {label}]({name})")
    text = "\n\n".join(parts)
    (out / REPORT).write_text(text + "\n", encoding="utf-8")
    return text


def _sections(results: Mapping[str, Any]) -> list[str]:
    by_kind: dict[str, list] = {}
    for head in results["heads"]:
        by_kind.setdefault(head["kind"], []).append(head)
    systems = by_kind["system"]
    parts = [f"# Comparison on {results['data']['prepared']}", _introduction(results)]
    for what, items in (("Not finished, and absent below", "failed"), ("Missing below", "missing")):
        if results[items]:
            listed = "; ".join(f"{name}: {error}" for name, error in results[items].items())
            parts.append(f"**{what}: {listed}. The same command tries again.**")
    parts += ["## Quality", _quality([*systems, *by_kind.get("reference", ())])]
    if results["machine"]:
        parts += ["## Cost of scoring", _costs(systems, results)]
    for kind, title in (("ablation", "Ablations"), ("sensitivity", "Active experts")):
        if kind in by_kind:
            full = [head for head in systems if head["row"] == "loopctr"]
            parts += [
                f"## {title}",
                "Each row is compared with the same depth of the full model.",
                _quality([*_ends(full), *_ends(by_kind[kind])]),
            ]
    if results["oracle"]:
        parts += [
            "## The oracle, its null control and honest rivals",
            "The oracle picks the depth of least loss with the label in sight. The null control is the "
            "same oracle on depths whose deviations come from other rows. The honest selector is fitted "
            "on the validation split.",
        ]
        for name, found in results["oracle"].items():
            parts += [_oracle_table(name, found), _headroom(found)]
    return [*parts, "## What the search chose", _search(results), "## Protocol", _protocol(results)]


def _introduction(results: Mapping[str, Any]) -> str:
    data, made, protocol = results["data"], results["made"], results["protocol"]
    rows = ", ".join(f"{split} {count:,}" for split, count in data["rows"].items())
    seeds = protocol["seeds"]
    return (
        f"`loopctr compare`, version {made['version']}, {made['date']}. Rows: {rows}"
        + (f"; protocol {data['protocol']}. " if data.get("protocol") else ". ")
        + f"{seeds} seed{'s' if seeds > 1 else ''} for each system, mean ± standard deviation. Each "
        f"system had {protocol['trials']} trials, of which the best by exact validation "
        f"{protocol['select'].upper()} was taken; epochs are chosen by the validation AUC (200 "
        "thresholds) of the served head; each final run reads the test split once. Differences are to "
        f"{results['base']}, of these trained models, with 95 % intervals of the test rows: AUC by "
        "DeLong's test with rows grouped by user, GAUC (plain mean over users) by a paired bootstrap "
        "over users."
    )


def _quality(heads: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            head["label"],
            *(_spread(head[name]) for name in FIGURES),
            _difference(head.get("auc_difference")),
            _difference(head.get("gauc_difference")),
        ]
        for head in heads
    ]
    return markdown_table(["", "AUC", "GAUC", "NE", "AUC difference", "GAUC difference"], rows)


def _costs(heads: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> str:
    machine = results["machine"]
    titles = ["", "parameters beside tables", "FLOPs a sample", "ms a batch", "peak MB of a call"]
    rows = [
        [
            head["label"],
            _with_ratio(f"{head['dense_parameters']:,}", head, "dense_parameters"),
            _with_ratio(f"{head['flops'] / 1e6:.2f} M", head, "flops"),
            _with_ratio(f"{head['p50_ms']:.1f}", head, "p50_ms"),
            _with_ratio(f"{head['peak_memory_bytes'] / 1e6:.0f}", head, "peak_memory_bytes"),
        ]
        for head in heads
    ]
    where = f"{machine['cores']} cores ({machine['processor']}), TensorFlow {machine['tensorflow']}"
    return (
        f"{where}; batches of {results['batch_size']:,} rows, all systems called in turn. In brackets "
        f"the ratio to {results['base']}.\n\n{markdown_table(titles, rows)}"
    )


def _with_ratio(text: str, head: Mapping[str, Any], key: str) -> str:
    ratio = head["ratios"][key]
    return text if ratio is None else f"{text} ({ratio:.2f})"


def _ends(heads: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of each row the first and the last head: zero loops, and all of them."""
    rows: dict[str, list] = {}
    for head in heads:
        rows.setdefault(head["row"], []).append(head)
    return [found[place] for found in rows.values() for place in dict.fromkeys((0, len(found) - 1))]


def _oracle_table(name: str, found: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        [key.replace("_", " "), *(f"{figures[figure]:.4f}" for figure in FIGURES)]
        for key, figures in found.items()
    ]
    return markdown_table([name, "AUC", "GAUC", "NE"], rows)


def _headroom(found: Mapping[str, Mapping[str, float]]) -> str:
    best = max(figures["auc"] for name, figures in found.items() if name.startswith("loop_"))
    real = found["oracle"]["auc"] - found["null control"]["auc"]
    reached = found["honest selector"]["auc"] - best
    return (
        f"Real headroom in AUC, the oracle minus its null control: {real:+.4f}. What an honest selector "
        f"gains over the best depth: {reached:+.4f}."
    )


def _search(results: Mapping[str, Any]) -> str:
    names = list(next(iter(results["search"].values()))["choice"])
    select = results["protocol"]["select"].upper()
    rows = [
        [
            row,
            *(f"{found['choice'][name]:.4g}" for name in names),
            f"{found['value']:.4f}",
            f"{found['trials']} ({found['pruned']} pruned)",
            f"{found['seconds']:.0f}",
        ]
        for row, found in results["search"].items()
    ]
    return markdown_table(["", *names, f"validation {select}", "trials", "seconds"], rows)


def _protocol(results: Mapping[str, Any]) -> str:
    rows = [
        [f"{section}.{name}", str(value)]
        for section in ("protocol", "training")
        for name, value in results[section].items()
    ]
    for name in results["search"]:
        settings = ", ".join(f"{key} {value}" for key, value in results["configs"][name].items())
        rows.append([name, settings])
    return markdown_table(["setting", "value"], rows)


def _spread(figure: Mapping[str, Any]) -> str:
    deviation = figure["deviation"]
    return f"{figure['mean']:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def _difference(found: Mapping[str, float] | None) -> str:
    if found is None or found["value"] != found["value"]:
        return ""
    return f"{found['value']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}] p {found['p']:.2g}"
