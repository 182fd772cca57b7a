"""Which columns become features, of which type and side, and with which embedding table."""

from dataclasses import dataclass, field

from loopctr_tf.prepare.guesses import (
    Guess,
    Roles,
    can_be_input,
    named,
    rating_like,
    result_of_the_click,
)
from loopctr_tf.prepare.profiles import Profile, Sample

CONSTANT, REPEATED = 0.98, 20
"""A column belongs to the user (item) if this share of at least so many users has a single value."""
HASHED = 1 << 20
"""Maximum rows of a hashed table."""

_SIDES = {
    "item": ("item", "category", "cat", "cate", "brand", "price", "genre", "genres", "topic"),
    "user": ("user", "age", "gender", "sex", "occupation", "zip", "city", "income"),
}
_CODES = ("id", "code", "zip", "category", "cat", "cate", "brand", "region", "country", "city")
_QUANTITIES = (
    *("age", "price", "count", "size", "year", "amount", "score", "rate", "hour", "num"),
    *("views", "clicks", "likes", "total", "sum", "mean", "length", "duration", "distance"),
)
_SESSION = ("session", "request", "impression", "query", "trace", "uuid", "row", "index")


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
    """A feature; ``table`` is None for a number."""

    name: str
    type: str
    side: str
    table: str | None
    max_values: int | None
    transform: str | None
    separator: str | None
    why: str


@dataclass
class Guesses:
    """What becomes of all columns without a role of their own.

    Attributes:
      features: in the order of the columns, the item first.
      tables: by name.
      left_out: columns that are not features, and why.
    """

    features: list[FeatureGuess] = field(default_factory=list)
    tables: dict[str, TableGuess] = field(default_factory=dict)
    left_out: list[Guess] = field(default_factory=list)

    def table(self, profile: Profile) -> str:
        """Adds a table for a column; returns its name."""
        name = profile.name.lower().removesuffix("_id").strip("_") or profile.name
        while name in self.tables:
            name += "_values"
        self.tables[name] = _table(name, profile)
        return name


def guess_features(events: Sample, items: Sample | None, roles: Roles) -> Guesses:
    """The features of the events and of the item table, if given.

    With sampled negatives (no label), item features come only from the item table.
    """
    guesses, item = Guesses(), roles.item.column
    profile = events.profiles[item]
    guesses.features.append(
        FeatureGuess(
            item, "categorical", "item", guesses.table(profile), None, None, None, roles.item.why
        )
    )
    columns = [(p, None) for name, p in events.profiles.items() if name not in roles.taken()]
    if items is not None:
        columns += [(p, "item") for p in items.profiles.values()]
    seen = {item.lower()} | {name.lower() for name in roles.taken()}
    for profile, side in columns:
        if profile.name == item:
            continue
        why_not = _unfit(profile)
        if profile.name.lower() in seen:
            why_not = why_not or "another column has this name"
        seen.add(profile.name.lower())
        why = "of the table of items"
        if side is None and why_not is None:
            side, why = _side(events, roles, profile)
            if side == "item" and roles.label is None:
                why_not = "of the item; sampled items need its value from --items"
                seen.discard(profile.name.lower())
        if why_not is not None:
            guesses.left_out.append(Guess(profile.name, why_not))
            continue
        guesses.features.append(_feature(guesses, profile, side, why))
    for sample in filter(None, (events, items)):
        guesses.left_out += [
            Guess(name, f"{kind}, which cannot be a feature")
            for name, kind in sample.unreadable.items()
        ]
    return guesses


def _unfit(profile: Profile) -> str | None:
    """Why a column cannot be a feature; None if it can."""
    name = profile.name
    if profile.distinct == 0:
        return "empty"
    if profile.distinct == 1:
        return f"always {profile.commonest[0]!r}"
    if not can_be_input(name):
        return "not a valid name of a model input: rename it"
    if rating_like(profile) or result_of_the_click(name):
        return "by its name, known only after the user's response"
    if named(name, _SESSION):
        return "by its name, an id of a session or request: does it occur again later?"
    if profile.kind == "date" or profile.unit is not None:
        return "a second timestamp: convert it to a number of hours"
    if profile.kind == "number" and profile.longest is not None:
        return "lists of numbers with fractions"
    if all(value.startswith("[") for value in profile.commonest):
        return "lists in brackets: write them as values with a separator alone, such as 3|17"
    if profile.kind == "text" and profile.distinct == profile.rows > REPEATED:
        return "different in every row"
    if profile.kind == "text" and profile.characters > 40 and profile.distinct * 2 > profile.rows:
        return "free text"
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


def _feature(guesses: Guesses, profile: Profile, side: str, why: str) -> FeatureGuess:
    name, missing = profile.name, profile.missing
    if missing:
        why += f"; {missing / profile.looked_at:.0%} missing"
    if profile.longest is not None:
        why += f"; lists of up to {profile.longest} values in the sample"
        table = guesses.table(profile)
        room = max(2 * profile.longest, 4)
        return FeatureGuess(
            name, "multi_categorical", side, table, room, None, profile.separator, why
        )
    if _is_number(profile):
        skewed = profile.least >= 0 and profile.most > 100 * max(profile.median, 1.0)
        transform = "log1p" if skewed else None
        why += f"; {profile.least:g} to {profile.most:g}, half up to {profile.median:g}"
        return FeatureGuess(name, "numeric", side, None, None, transform, None, why)
    return FeatureGuess(name, "categorical", side, guesses.table(profile), None, None, None, why)


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
