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


def write(out: Path, results: Mapping[str, Any]) -> str:
    """Writes ``results.json``, ``results.md`` and two plots to ``out``; returns the Markdown."""
    write_json(out / RESULTS, results)
    drawn = [head for head in results["heads"] if "flops" in head]
    plots = {
        "auc_by_flops.png": ("flops", 1e6, "FLOPs a sample (millions)"),
        "auc_by_latency.png": (
            "p50_ms",
            1,
            f"latency of {results['batch_size']:,} rows (ms, median)",
        ),
    }
    for name, (key, unit, label) in plots.items():
        points = [
            (head["label"], head[key] / unit, head["auc"]["mean"], head["auc"]["deviation"])
            for head in drawn
        ]
        tradeoff_plot(out / name, points, label, "test AUC")
    text = "\n\n".join(
        [*_sections(results), *(f"![{name[:-4].replace('_', ' ')}]({name})" for name in plots)]
    )
    (out / REPORT).write_text(text + "\n", encoding="utf-8")
    return text


def _sections(results: Mapping[str, Any]) -> list[str]:
    systems = [head for head in results["heads"] if head["kind"] == "system"]
    base, seeds = results["base"], results["protocol"]["seeds"]
    facts = results["data"]
    rows = ", ".join(f"{split} {count:,}" for split, count in facts["rows"].items())
    parts = [
        f"# Comparison on {facts['prepared']}",
        f"Rows: {rows}. {seeds} seed{'s' if seeds > 1 else ''} for each system; the validation split "
        "chose settings and epochs, the test split was read once by each final run. Mean ± standard "
        f"deviation over seeds. Differences are to {base}: AUC with DeLong's test, GAUC (plain mean "
        "over users) with a paired bootstrap over users; both with 95 % intervals of the test rows.",
    ]
    if results["failed"]:
        listed = "; ".join(f"{name}: {error}" for name, error in results["failed"].items())
        parts.append(f"**Not finished, and absent below: {listed}. Run the same command again.**")
    parts += ["## Quality", _quality(systems, results["references"])]
    parts += ["## Cost of scoring", _costs(systems, results)]
    for kind, title in (
        ("ablation", "Ablations"),
        ("sensitivity", "Active experts of all experts"),
    ):
        chosen = [head for head in results["heads"] if head["kind"] == kind]
        if chosen:
            full = [head for head in systems if head["row"] == "loopctr"]
            parts += [f"## {title}", _quality([*_ends(full), *_ends(chosen)], {})]
    if results["oracle"]:
        parts += [
            "## The oracle, its null control and honest rivals",
            "The oracle picks the depth of least loss with the label in sight. The null control is the "
            "same oracle on depths whose deviations come from other rows: real headroom is the oracle "
            "minus it. The honest selector is fitted on the validation split.",
            *(_oracle_table(name, found) for name, found in results["oracle"].items()),
        ]
    return [*parts, "## What the search chose", _search(results), "## Protocol", _protocol(results)]


def _quality(
    heads: Sequence[Mapping[str, Any]], references: Mapping[str, Mapping[str, Any]]
) -> str:
    rows = [
        [
            head["label"],
            *(_spread(head[name]) for name in FIGURES),
            _difference(head.get("auc_difference")),
            _difference(head.get("gauc_difference")),
        ]
        for head in heads
    ]
    rows += [
        [name.replace("_", " "), *(f"{found[key]:.4f}" for key in FIGURES), "", ""]
        for name, found in references.items()
    ]
    return markdown_table(["", "AUC", "GAUC", "NE", "AUC difference", "GAUC difference"], rows)


def _costs(heads: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> str:
    found = results["machine"]
    head = [
        "",
        "parameters beside tables",
        "FLOPs a sample",
        f"ms for {results['batch_size']:,} rows",
        "peak MB",
    ]
    rows = [
        [
            each["label"],
            _with_ratio(f"{each['dense_parameters']:,}", each, "dense_parameters"),
            _with_ratio(f"{each['flops'] / 1e6:.2f} M", each, "flops"),
            _with_ratio(f"{each['p50_ms']:.1f}", each, "p50_ms"),
            _with_ratio(f"{each['peak_memory_bytes'] / 1e6:.0f}", each, "peak_memory_bytes"),
        ]
        for each in heads
    ]
    machine = f"{found['cores']} cores ({found['processor']}), TensorFlow {found['tensorflow']}."
    return f"{machine} In brackets the ratio to {results['base']}.\n\n{markdown_table(head, rows)}"


def _with_ratio(text: str, head: Mapping[str, Any], key: str) -> str:
    ratio = head["ratios"][key]
    return text if ratio is None else f"{text} ({ratio:.2f})"


def _ends(heads: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of each row the first and the last head: zero loops, and all of them."""
    rows: dict[str, list] = {}
    for head in heads:
        rows.setdefault(head["row"], []).append(head)
    return [
        head
        for found in rows.values()
        for head in (found if len(found) == 1 else [found[0], found[-1]])
    ]


def _oracle_table(name: str, found: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        [key.replace("_", " "), *(f"{figures[f]:.4f}" for f in FIGURES)]
        for key, figures in found.items()
    ]
    return markdown_table([name, "AUC", "GAUC", "NE"], rows)


def _search(results: Mapping[str, Any]) -> str:
    names = list(next(iter(results["search"].values()))["choice"])
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
    select = results["protocol"]["select"].upper()
    return markdown_table(["", *names, f"validation {select}", "trials", "seconds"], rows)


def _protocol(results: Mapping[str, Any]) -> str:
    sections = {name: results[name] for name in ("protocol", "training")}
    rows = [
        [f"{section}.{name}", str(value)]
        for section, values in sections.items()
        for name, value in values.items()
    ]
    rows += [
        [f"models.{name}", str(values)] for name, values in results["models"].items() if values
    ]
    return markdown_table(["setting", "value"], rows)


def _spread(figure: Mapping[str, Any]) -> str:
    deviation = figure["deviation"]
    return f"{figure['mean']:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def _difference(found: Mapping[str, float] | None) -> str:
    if found is None:
        return ""
    return f"{found['value']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}] p {found['p']:.2g}"
