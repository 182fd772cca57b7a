"""Guesses the roles of an event table's columns from their names and a sample."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.column_names import (
    ITEM,
    LABEL,
    ORDER,
    RATING,
    TIME,
    USER,
    is_id,
    named,
    result_of_the_click,
    words,
)
from loopctr_tf.prepare.files import quoted
from loopctr_tf.prepare.profiles import Profile
from loopctr_tf.prepare.sample import Sample
from loopctr_tf.prepare.text_scan import literal

_EVENT = ("event", "action", "behavior", "behaviour", "type", "btag", "verb")
_SHOWN = ("impression", "view", "show", "shown", "exposure", "pv", "seen")
_DONE = ("click", "clk", "like", "buy", "purchase", "cart", "order", "fav", "share")
_YES = ("1", "true", "yes", "y", "t", "clicked", "click", "positive", "pos")
_NO = ("0", "-1", "false", "no", "n", "f", "negative", "neg", "skip", "none")
_SPLIT = ("split", "fold", "partition", "part", "set")
_SPLIT_VALUES = {
    "train": ("train", "training", "tr"),
    "valid": ("valid", "validation", "val", "dev"),
    "test": ("test", "te", "testing"),
}
_LARGE, _MANY = 0.2, 20
"""A share of all events that one id of so many has only if it is none."""


@dataclass(frozen=True)
class Guess:
    """A column, and in a few words why it was chosen."""

    column: str
    why: str


@dataclass(frozen=True)
class Roles:
    """The columns with a role of their own.

    Attributes:
      user, item, time: their columns.
      unit: of the time.
      only_order: the time column holds ranks of a user's events, not timestamps.
      label: {"column": ..., "values": [...]} or {"column": ..., "at_least": ...} as in `build: label`;
        {"column": ...} for a column of 0 and 1; None where every event is a positive.
      label_why: why.
      split: {"column": ..., "train": [...], ...} as in `build: split`; None without such a column.
    """

    user: Guess
    item: Guess
    time: Guess
    unit: str
    only_order: bool
    label: dict | None
    label_why: str
    split: dict | None

    def taken(self) -> set[str]:
        """Names of the columns that are not features; the item is one."""
        names = {self.user.column, self.time.column}
        names |= {rule["column"] for rule in (self.label, self.split) if rule is not None}
        return names


def guess_roles(sample: Sample) -> Roles:
    """Guesses the columns with a role of their own.

    Raises:
      UsageError: if no column can be the user, the item or the time.
    """
    profiles = sample.profiles
    _check_header(profiles)
    user = _by_name(sample, profiles, "user", USER)
    left = {name: p for name, p in profiles.items() if name != user.column}
    item = _by_name(sample, left, "item", ITEM)
    left.pop(item.column)
    time, unit, only_order = _time(sample, left)
    left.pop(time.column)
    split = _split(left)
    if split is not None:
        left.pop(split["column"])
    label, why = _label(sample, left)
    return Roles(user, item, time, unit, only_order, label, why, split)


def condition_sql(rule: dict) -> str:
    """SQL for the events of ``sample`` that meet the rule of a label."""
    column = quoted(rule["column"])
    if "at_least" in rule:
        return f"TRY_CAST({column} AS DOUBLE) >= {rule['at_least']}"
    return f"{column} IN ({', '.join(literal(str(v)) for v in rule.get('values', ('1', 'true')))})"


def rating_like(profile: Profile) -> bool:
    """Whether a column holds how much a user liked an item."""
    return named(profile.name, RATING) and profile.kind in ("whole", "number")


def _check_header(profiles: dict[str, Profile]) -> None:
    """Refuses columns that are called like values of theirs."""

    def like_data(profile: Profile) -> bool:
        name = profile.name.strip()
        numbers = all(re.fullmatch(r"-?[0-9.]+", part) for part in re.split(r"[\s,;|]+", name))
        return numbers or name in profile.commonest

    found = [name for name, profile in profiles.items() if like_data(profile)]
    if 2 * len(found) >= max(len(profiles), 2):
        raise UsageError(
            f"the columns are called {', '.join(list(profiles)[:8])}: a header seems to be missing; "
            "name the columns in their order, e.g. --no-header --names user_id,item_id,timestamp,click"
        )


def _why_not(profile: Profile) -> str:
    """Why a column cannot be an id; empty if it can."""
    if result_of_the_click(profile.name):
        return "its name suggests a result of the click"
    if profile.longest is not None:
        return "it holds lists"
    if profile.distinct < 2:
        return "it has a single value" if profile.distinct else "it is empty"
    if profile.kind == "date" or (profile.time is not None and not is_id(profile.name)):
        return "it holds times"
    if profile.kind not in ("whole", "text"):
        return "it holds fractions" if profile.kind == "number" else "it holds true and false"
    return ""


def _by_name(sample: Sample, left: dict[str, Profile], what: str, known: Sequence[str]) -> Guess:
    """The column with such a name that is likeliest an id: with many values that come again."""
    named_so = [p for p in left.values() if named(p.name, known)]
    fitting = [p for p in named_so if not _why_not(p)]
    nearly = [(p.name, _why_not(p)) for p in named_so if p not in fitting]
    if not fitting:
        looked = "; ".join(f"{name} is named so, but {why}" for name, why in nearly)
        raise UsageError(
            f"no column looks like the {what}; rename one, e.g. to {what}_id (without a header, by "
            f"--names). The table has {', '.join(sample.profiles)}"
            + (f" ({looked})" if looked else "")
            + "; LoopCTR reads users' histories: events need a user, an item and a time"
        )

    def likely(p: Profile):
        id_like = is_id(p.name) or words(p.name)[-1] in known
        return (p.distinct < p.rows, id_like, p.distinct)

    whys = ("every row has another value", "its name is less like an id", "it has fewer values")
    best, others = _best(fitting, likely, whys)
    why = f"by its name; {best.distinct:,} distinct values"
    if best.distinct == best.rows > 1:
        why += ", a different one in every row: does each have several events in the whole log?"
    if best.most_common > _LARGE and best.distinct >= _MANY:
        why += f"; NOTE: {best.most_common:.0%} of the events have {best.commonest[0]!r}: "
        why += f"is that one {what}?"
    return Guess(best.name, why + _nearly(nearly + others))


def _best(profiles: list[Profile], likely: Callable[[Profile], tuple], whys: Sequence[str]):
    """(the likeliest column, [(another, the first of ``whys`` in which it is less likely)])."""
    best, *others = sorted(profiles, key=likely, reverse=True)

    def why(other: Profile) -> str:
        pairs = zip(likely(best), likely(other), [*whys, ""], strict=False)
        return next((w for a, b, w in pairs if a != b), "it comes later")

    return best, [(p.name, why(p)) for p in others]


def _nearly(others: list[tuple[str, str]]) -> str:
    return "".join(f"; nearly {name}, but {why}" for name, why in others[:3])


def _time(sample: Sample, left: dict[str, Profile]) -> tuple[Guess, str, bool]:
    single = [p for p in left.values() if p.longest is None and p.distinct]
    found = [p for p in single if p.kind == "date" or p.time is not None]
    nearly = [
        (p.name, "its values are not times")
        for p in single
        if named(p.name, TIME) and p not in found and not result_of_the_click(p.name)
    ]

    def likely(p: Profile):
        # The time of an event has more distinct values than that of a session.
        return (named(p.name, TIME), not is_id(p.name), p.distinct)

    hints = [(p.name, p.time.hint) for p in found if p.time is not None and p.time.hint]
    readable = [p for p in found if p.name not in dict(hints)]
    if any(named(name, TIME) for name, _ in hints):  # Rather an error than a worse column.
        readable = [p for p in readable if named(p.name, TIME)]
    if readable:
        whys = ("its name is less like a time", "its name is like an id", "it has fewer values")
        best, others = _best(readable, likely, whys)
        nearly += [(name, f"it {hint}") for name, hint in hints] + others
        unit = best.time.unit if best.time is not None else None
        why = f"numbers that are {unit} since 1970" if unit else "dates"
        if best.time is not None:
            why += f", {best.time.format}" if best.time.format.startswith("Y") else ""
            why += f"; NOTE: {best.time.remark}" if best.time.remark else ""
        return Guess(best.name, why + _nearly(nearly)), unit or "s", False
    if not hints:
        for p in left.values():
            if named(p.name, ORDER) and p.kind == "whole":
                why = "no column holds timestamps; these numbers order a user's events"
                return Guess(p.name, why + _nearly(nearly)), "s", True
    raise UsageError(
        "no column looks like the time of the events (dates, or numbers since 1970 in s, ms, us or "
        f"ns); add one. The table has {', '.join(sample.profiles)}"
        + "".join(f"; {name} {why}" for name, why in hints)
        + "".join(f"; {name} is named so, but {why}" for name, why in nearly)
    )


def _label(sample: Sample, left: dict[str, Profile]) -> tuple[dict | None, str]:
    single = [p for p in left.values() if p.longest is None]
    two = [p for p in single if p.distinct == 2]
    for known in LABEL:
        for p in two:
            if known not in words(p.name):
                continue
            if set(p.commonest) in ({"0", "1"}, {"true", "false"}):
                return {"column": p.name}, _met(sample, {"column": p.name}, "by its name")
            yes = [v for v in p.commonest if v.lower() in _YES]
            if len(yes) == 1 and all(v in yes or v.lower() in _NO for v in p.commonest):
                rule = {"column": p.name, "values": yes}
                return rule, _met(sample, rule, "by its name and values")
    for p in single:
        if p.kind != "text" or p.distinct > 30 or not named(p.name, _EVENT):
            continue
        done = [v for v in p.commonest if named(v, _DONE)]
        shown = [v for v in p.commonest if named(v, _SHOWN)]
        if done and len(done) < p.distinct:
            best = next((v for v in done if named(v, ("click", "clk"))), done[0])
            others = f"; it also has {', '.join(v for v in p.commonest if v != best)}"
            why = "events of that kind are the positives" + (others if shown or done[1:] else "")
            rule = {"column": p.name, "values": [best]}
            return rule, _met(sample, rule, why)
    for p in single:
        if rating_like(p) and p.most > 1:
            levels = [4] if 4 <= p.most <= 5 else []
            for least in (*levels, round(p.median, 2), p.most):
                rule = {"column": p.name, "at_least": least}
                if 0 < _share(sample, rule) < 1:
                    return rule, _met(sample, rule, f"a rating from {p.least:g} to {p.most:g}")
    why = "no column of 0 and 1, ratings or kinds of event was found"
    for p in single:
        if named(p.name, LABEL) and p.distinct == 1:
            why += f"; {p.name} is always {p.commonest[0]!r} in the sample"
    return None, why


def _share(sample: Sample, rule: dict) -> float:
    """Share of the events that meet a rule."""
    return sample.one(f"SELECT avg(({condition_sql(rule)})::INT) FROM sample")[0] or 0.0


def _met(sample: Sample, rule: dict, why: str) -> str:
    missing = sample.profiles[rule["column"]].missing
    why += f"; {_share(sample, rule):.1%} of the events are positive"
    return why + (f", {missing:,} without a label" if missing else "")


def _split(left: dict[str, Profile]) -> dict | None:
    for profile in left.values():
        if profile.kind != "text" or not named(profile.name, _SPLIT) or profile.distinct > 6:
            continue
        parts = {
            split: [v for v in profile.commonest if v.lower() in known]
            for split, known in _SPLIT_VALUES.items()
        }
        if parts["train"] and parts["test"]:
            return {"column": profile.name, **parts}
    return None
