"""Which columns become features, of which type and side, and with which embedding table."""

from dataclasses import dataclass, field
from statistics import median

from loopctr_tf.prepare.column_names import (
    SESSION,
    another_response,
    input_name,
    is_id,
    named,
    result_of_the_click,
)
from loopctr_tf.prepare.guesses import Guess, Roles, condition_sql, rating_like
from loopctr_tf.prepare.leaks import PERFECT, STRONG, Judge, Verdict, too_good
from loopctr_tf.prepare.profiles import Profile
from loopctr_tf.prepare.sample import Sample

CONSTANT, REPEATED = 0.98, 20
"""A column belongs to the user (item) if this share of at least so many users has a single value."""
HASHED = 1 << 20
"""Maximum rows of a hashed table."""
SUSPICIOUS = 0.75
"""AUC with which a column whose name may suggest a result, such as duration, is one."""
_SHORT = 8
"""Lists of so many values are not cut off."""

_SIDES = {
    "item": ("item", "category", "cat", "cate", "brand", "price", "genre", "genres", "topic"),
    "user": ("user", "age", "gender", "sex", "occupation", "zip", "city", "income"),
}
_CODES = ("id", "code", "zip", "category", "cat", "cate", "brand", "region", "country", "city")
_QUANTITIES = (
    *("age", "price", "count", "size", "year", "amount", "score", "rate", "hour", "num"),
    *("views", "clicks", "likes", "total", "sum", "mean", "length", "duration", "distance"),
)
_AFTERWARDS = "by its name, known only after the user's response"


@dataclass(frozen=True)
class TableGuess:
    """An embedding table; ``buckets`` is None for a vocabulary with ``min_count``."""

    name: str
    dtype: str
    buckets: int | None
    min_count: int
    why: str


@dataclass(frozen=True)
class FeatureGuess:
    """A feature named ``name``, of ``column``; ``table`` is None for a number."""

    name: str
    column: str
    type: str
    side: str
    why: str
    table: str | None = None
    max_values: int | None = None
    transform: str | None = None
    separator: str | None = None


@dataclass
class Guesses:
    """What becomes of all columns without a role of their own.

    Attributes:
      features: in the order of the columns, the item first.
      tables: by name.
      left_out: columns that are not features, and why.
      taken: names in lower case that no feature may have.
      judged: whether the sample has enough labels to see which columns are results.
    """

    features: list[FeatureGuess] = field(default_factory=list)
    tables: dict[str, TableGuess] = field(default_factory=dict)
    left_out: list[Guess] = field(default_factory=list)
    judged: bool = True
    taken: frozenset[str] = frozenset()

    def add(self, profile: Profile, side: str, why: str, one_value: bool = False) -> None:
        """Adds a feature; ``one_value`` makes it categorical, as the item is."""
        name = input_name(profile.name, self.taken | {f.name.lower() for f in self.features})
        given = {"name": name, "column": profile.name, "side": side}
        if not one_value and profile.longest is not None:
            room, note = _room(profile)
            kind = {"type": "multi_categorical", "max_values": room, "separator": profile.separator}
            kind |= {"table": self._table(name, profile)}
            why += note
        elif not one_value and _is_number(profile):
            skewed = profile.least >= 0 and profile.most > 100 * max(profile.median, 1.0)
            kind = {"type": "numeric", "transform": "log1p" if skewed else None}
            why += f"; {profile.least:g} to {profile.most:g}, half up to {profile.median:g}"
        else:
            kind = {"type": "categorical", "table": self._table(name, profile)}
        self.features.append(FeatureGuess(why=why, **given, **kind))

    def _table(self, name: str, profile: Profile) -> str:
        name = name.lower().removesuffix("_id").strip("_") or name
        while name in self.tables:
            name += "_values"
        self.tables[name] = _table(name, profile)
        return name


def guess_features(events: Sample, items: Sample | None, roles: Roles) -> Guesses:
    """The features of the events and of the item table, if given.

    With sampled negatives (no label), item features come only from the item table.
    """
    guesses = Guesses(taken=frozenset(name.lower() for name in roles.taken()))
    item = roles.item.column
    guesses.add(events.profiles[item], "item", roles.item.why, one_value=True)
    of_events = [p for name, p in events.profiles.items() if name not in {item, *roles.taken()}]
    of_items = [] if items is None else [p for name, p in items.profiles.items() if name != item]
    verdicts = _verdicts(events, roles, of_events)
    guesses.judged = any(v.auc is not None for v in verdicts.values()) or not verdicts
    below = [v.auc for v in verdicts.values() if v.auc is not None and v.auc < PERFECT]
    typical = median(below) if below else 0.5
    seen = {item.lower()} | {name.lower() for name in roles.taken()}
    for profile, sample in [*((p, events) for p in of_events), *((p, items) for p in of_items)]:
        why_not = _unfit(profile)
        if profile.name.lower() in seen:
            why_not = why_not or "another column has this name"
        seen.add(profile.name.lower())
        side, why = "item", "of the table of items"
        if sample is events and why_not is None:
            verdict = verdicts[profile.name]
            why_not = _result(profile, verdict, typical, roles)
            side, why = _side(events, roles, profile)
            if verdict.auc is not None and verdict.auc >= STRONG:
                why += (
                    f"; NOTE: predicts the label by itself (AUC {verdict.auc:.2f}): known before?"
                )
            if side == "item" and roles.label is None:
                why_not = why_not or "of the item; sampled items need its value from --items"
                seen.discard(profile.name.lower())
        if why_not is not None:
            guesses.left_out.append(Guess(profile.name, why_not))
        else:
            guesses.add(profile, side, why + _remarks(profile, sample))
    for sample in filter(None, (events, items)):
        guesses.left_out += [
            Guess(name, f"{kind}, which cannot be a feature")
            for name, kind in sample.unreadable.items()
        ]
    return guesses


def _verdicts(events: Sample, roles: Roles, profiles: list[Profile]) -> dict[str, Verdict]:
    positive = None if roles.label is None else condition_sql(roles.label)
    judge = Judge(events, (roles.item.column, roles.user.column), positive)
    return {p.name: judge(p) for p in profiles if _unfit(p) is None}


def _result(profile: Profile, verdict: Verdict, typical: float, roles: Roles) -> str | None:
    """Why a column seems to be a result of the click; None if it does not."""
    name, auc = profile.name, verdict.auc
    if verdict.a_property and not (result_of_the_click(name) and too_good(auc, typical)):
        return None
    if too_good(auc, typical):
        return f"predicts the label by itself, AUC {auc:.2f} in the sample: known only afterwards"
    if verdict.pure:
        return f"{verdict.pure}: known only afterwards"
    if result_of_the_click(name):
        return _AFTERWARDS
    if rating_like(profile) or named(name, ("duration",)):
        return _AFTERWARDS if auc is None or auc >= SUSPICIOUS else None
    if roles.label is not None and profile.distinct == 2 and another_response(name):
        return "by its name, another response of the user"
    return None


def _unfit(profile: Profile) -> str | None:
    """Why a column cannot be a feature; None if it can."""
    name = profile.name
    if profile.distinct == 0:
        return "empty"
    if profile.distinct == 1 and not profile.missing:
        return f"always {profile.commonest[0]!r}"
    if profile.kind == "date" or (profile.time is not None and not is_id(name)):
        return "a second timestamp: convert it to a number of hours"
    if profile.kind == "number" and profile.longest is not None:
        return "lists of numbers with fractions"
    if profile.kind == "text" and profile.distinct == profile.rows > REPEATED:
        return "different in every row"
    if profile.kind == "text" and profile.characters > 40 and profile.distinct * 2 > profile.rows:
        return "free text"
    if named(name, SESSION):
        return "by its name, of a session or request: does it occur again later?"
    return None


def _side(events: Sample, roles: Roles, profile: Profile) -> tuple[str, str]:
    shares = {}
    for side, key in (("user", roles.user.column), ("item", roles.item.column)):
        share, count = events.constant_within(profile.name, key)
        if count >= REPEATED and share >= CONSTANT:
            shares[side] = share
    if shares:
        ties = [side for side, share in shares.items() if share == max(shares.values())]
        side = next((s for s in ties if named(profile.name, _SIDES[s])), ties[0])
        return side, f"one value for {shares[side]:.1%} of the {side}s with several rows"
    for side, known in _SIDES.items():
        if named(profile.name, known) and not _judged(events, roles, side):
            return side, "by its name"
    return "context", "differs between the rows of a user, and of an item"


def _judged(events: Sample, roles: Roles, side: str) -> bool:
    """Whether enough users (items) have several rows to judge if a column is constant for them."""
    key = roles.user.column if side == "user" else roles.item.column
    return events.constant_within(key, key)[1] >= REPEATED


def _remarks(profile: Profile, sample: Sample) -> str:
    share = profile.missing / profile.looked_at
    text = f"; {profile.missing:,} missing ({share:.0%})" if profile.missing else ""
    if profile.absent:
        text += f", absent from {profile.absent} of {sample.files} files"
    remark = "" if named(profile.name, _CODES) else profile.remark
    return text + (f"; NOTE: {remark}" if remark else "")


def _room(profile: Profile) -> tuple[int, str]:
    """(max_values, a comment on it)."""
    room = profile.longest if profile.longest <= _SHORT else profile.usual
    return room, (
        f"; half of the lists have up to {profile.typical:,} values, 99% up to {profile.usual:,}, the "
        f"longest {profile.longest:,}"
    )


def _is_number(profile: Profile) -> bool:
    if profile.kind == "number":
        return True
    if profile.kind != "whole" or named(profile.name, _CODES):
        return False
    return profile.distinct > 50 or (named(profile.name, _QUANTITIES) and profile.distinct > 2)


def _table(name: str, profile: Profile) -> TableGuess:
    # In int64 tables -1 means missing.
    dtype = "int64" if profile.kind == "whole" and profile.least >= 0 else "string"
    why = f"{profile.distinct:,} values in the sample"
    if profile.distinct > 10_000 and 2 * profile.distinct > profile.rows:
        buckets = min(HASHED, 1 << (2 * profile.distinct - 1).bit_length())
        return TableGuess(
            name, dtype, buckets, 1, f"{why}, few of them repeated: hashed, without a vocabulary"
        )
    min_count = 1 if profile.distinct <= 1000 else 5
    if min_count > 1:
        why += f"; those in fewer than {min_count} training rows count as unknown"
    return TableGuess(name, dtype, None, min_count, why)
