"""Guesses the roles of an event table's columns from their names and a sample."""

import keyword
import re
from collections.abc import Sequence
from dataclasses import dataclass

from loopctr_tf.errors import UsageError
from loopctr_tf.prepare.profiles import Profile, Sample

_USER = ("user", "uid", "customer", "member", "visitor", "reviewer", "cookie", "account", "client")
_ITEM = (
    *("item", "article", "product", "ad", "adgroup", "asin", "movie", "video", "book", "track"),
    *("song", "news", "sku", "goods", "creative", "listing", "business", "offer", "content", "iid"),
)
_TIME = ("timestamp", "time", "ts", "datetime", "unixtime", "date", "at", "day")
_ORDER = ("pos", "position", "order", "rank", "step", "sequence", "seq")
_LABEL = ("label", "click", "clicked", "clk", "target", "like", "liked", "converted", "y")
_RATING = ("rating", "stars", "score", "overall")
_EVENT = ("event", "action", "behavior", "behaviour", "type", "btag", "verb")
_SHOWN = ("impression", "view", "show", "shown", "exposure", "pv", "seen")
_DONE = ("click", "clk", "like", "buy", "purchase", "cart", "order", "fav", "share")
_SPLIT = ("split", "fold", "partition", "part", "set")
_SPLIT_VALUES = {
    "train": ("train", "training", "tr"),
    "valid": ("valid", "validation", "val", "dev"),
    "test": ("test", "te", "testing"),
}
_RESULT = ("dwell", "watch", "watched", "duration", "playtime", "revenue", "conversion", "review")


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


def words(name: str) -> list[str]:
    """The words of a name: ``clickArticle_id`` has click, article and id."""
    return re.findall(r"[a-z]+|[0-9]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower())


def named(name: str, known: Sequence[str]) -> bool:
    """Whether a word of ``name`` is one of ``known``, ``userid`` being a user."""
    found = words(name)
    return any(word in known or word.removesuffix("id") in known for word in found)


def can_be_input(name: str) -> bool:
    """Whether a model may have an input of that name."""
    return (
        name.isascii()
        and name.isidentifier()
        and not keyword.iskeyword(name)
        and name not in ("self", "inputs", "refine_top_k")
        and not name.startswith("state_")
    )


def guess_roles(sample: Sample) -> Roles:
    """Guesses the columns with a role of their own.

    Raises:
      UsageError: if no column can be the user, the item or the time.
    """
    profiles = sample.profiles
    user = _one(sample, "user", "user_id", _by_name(profiles, _USER, _many_and_repeated))
    left = {name: p for name, p in profiles.items() if name != user.column}
    item = _one(sample, "item", "item_id", _by_name(left, _ITEM, _several))
    left.pop(item.column)
    time, unit, only_order = _time(sample, left)
    left.pop(time.column)
    split = _split(left)
    if split is not None:
        left.pop(split["column"])
    label, why = _label(left)
    return Roles(user, item, time, unit, only_order, label, why, split)


def result_of_the_click(name: str) -> bool:
    """Whether a column's name suggests that it is known only after the user's response."""
    return named(name, _RESULT)


def rating_like(profile: Profile) -> bool:
    """Whether a column holds how much a user liked an item."""
    return named(profile.name, _RATING) and profile.kind in ("whole", "number")


def _many_and_repeated(profile: Profile) -> bool:
    return profile.longest is None and 1 < profile.distinct < max(profile.rows, 3)


def _several(profile: Profile) -> bool:
    return profile.longest is None and profile.distinct > 1


def _by_name(profiles: dict[str, Profile], known: Sequence[str], fits) -> list[Guess]:
    """Columns with such a name, the likeliest first: ids with many values."""
    found = [p for p in profiles.values() if named(p.name, known) and fits(p)]
    found = [p for p in found if p.kind in ("whole", "text")]

    def likely(profile: Profile):
        is_id = "id" in words(profile.name) or any(
            word.endswith("id") or word in known for word in words(profile.name)[-1:]
        )
        return (is_id, profile.distinct)

    found.sort(key=likely, reverse=True)
    return [Guess(p.name, f"by its name; {p.distinct:,} distinct values") for p in found]


def _one(sample: Sample, what: str, example: str, guesses: list[Guess]) -> Guess:
    if guesses:
        return guesses[0]
    raise UsageError(
        f"no column looks like the {what}; rename one, e.g. to {example}. The table has "
        f"{', '.join(sample.profiles)}"
    )


def _time(sample: Sample, left: dict[str, Profile]) -> tuple[Guess, str, bool]:
    dated = [p for p in left.values() if p.kind == "date"]
    numbered = [p for p in left.values() if p.unit is not None and p.longest is None]
    # The time of an event has more distinct values than that of a session.
    found = sorted(
        dated + numbered,
        key=lambda p: (named(p.name, _TIME), "id" not in words(p.name), p.distinct),
        reverse=True,
    )
    if found:
        best = found[0]
        others = ", ".join(p.name for p in found[1:] if "id" not in words(p.name))
        why = "dates" if best.kind == "date" else f"numbers that are {best.unit} since 1970"
        why += f"; other candidates: {others}" if others else ""
        return Guess(best.name, why), best.unit or "s", False
    for profile in left.values():
        if named(profile.name, _ORDER) and profile.kind == "whole":
            why = "no column holds timestamps; these numbers order a user's events"
            return Guess(profile.name, why), "s", True
    raise UsageError(
        "no column looks like the time of the events (dates, or numbers since 1970 in s, ms, us or "
        f"ns); add one. The table has {', '.join(sample.profiles)}"
    )


def _label(left: dict[str, Profile]) -> tuple[dict | None, str]:
    binary = [
        p
        for p in left.values()
        if p.longest is None
        and (p.kind == "bool" or (p.kind == "whole" and p.least == 0 and p.most == 1))
    ]
    for known in _LABEL:
        for profile in binary:
            if known in words(profile.name):
                return {"column": profile.name}, "by its name; it holds 0 and 1"
    for profile in left.values():
        if profile.kind != "text" or profile.distinct > 30 or profile.longest is not None:
            continue
        if not named(profile.name, _EVENT):
            continue
        done = [v for v in profile.commonest if named(v, _DONE)]
        shown = [v for v in profile.commonest if named(v, _SHOWN)]
        if done and len(done) < profile.distinct:
            best = next((v for v in done if named(v, ("click", "clk"))), done[0])
            others = f"; it also has {', '.join(v for v in profile.commonest if v != best)}"
            why = "events of that kind are the positives" + (others if shown or done[1:] else "")
            return {"column": profile.name, "values": [best]}, why
    for profile in left.values():
        if rating_like(profile) and profile.most > 1:
            least = 4 if 4 <= profile.most <= 5 else round(profile.median, 2)
            return {"column": profile.name, "at_least": least}, (
                f"a rating from {profile.least:g} to {profile.most:g}, of which half are at least "
                f"{profile.median:g}"
            )
    return None, "no column of 0 and 1, ratings or kinds of event was found"


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
