"""Finds columns that are known only after the user's response: they predict the label by themselves.

For each column :func:`judge` computes, in at most 50,000 rows of the sample,

- the AUC of a number by itself, in the better of both directions;
- the AUC of the click rate of each value, or each of 50 intervals of a number, where missing is a value
  too. The rate of a row's value comes from the other folds of five, so that ids do not win by memory.

An AUC of at least 0.98, when the errors (1 - AUC) are a third at most of those of the median column, is
no luck: such a column is left out. So is a column where all of at least 50 rows with something but 0,
false or missing have the same label, as ``is_like`` has beside ``is_click``: a rate of at most 80% makes
this impossible by chance. Neither is said of a property of an item or of a user, that is, a column with
one value for 98% of those that have several rows, one of them of the rarer label.
"""

from dataclasses import dataclass

from loopctr_tf.prepare.files import quoted
from loopctr_tf.prepare.profiles import PLACE, Profile
from loopctr_tf.prepare.sample import Sample

PERFECT, STRONG = 0.98, 0.9
"""AUC of a column by itself that tells a result, and one that is worth a comment."""
_ROWS, _EACH, _BINS = 50_000, 20, 50
"""Rows looked at, rows of both labels that are needed, and intervals of a number."""
_COUNTS = "count(*) FILTER (WHERE y) AS p, count(*) FILTER (WHERE NOT y) AS n"
_PURE_ROWS, _PURE, _RATE = 50, 0.995, 0.8
_PROPERTY, _KEYS = 0.98, 5
"""Share of at least so many items that have one value."""


@dataclass(frozen=True)
class Verdict:
    """What a column by itself says of the label.

    Attributes:
      auc: see the module docstring; None where it cannot be computed.
      pure: "all 312 rows that have it are positive", if so.
      a_property: it has one value for each item or user.
    """

    auc: float | None
    pure: str
    a_property: bool


class Judge:
    """Judges the columns of a sample.

    Args:
      sample: the events.
      keys: the columns of the item and the user.
      positive: SQL for the label; None without one, when only properties are judged.
    """

    def __init__(self, sample: Sample, keys: tuple[str, str], positive: str | None):
        self._sample, self._keys = sample, keys
        self._among, self._rate = "count(*) > 1", None
        if positive is None:
            return
        sample.database.execute(
            f"CREATE OR REPLACE TEMP TABLE judged AS SELECT {PLACE}, ({positive}) AS is_positive, "
            f"hash({PLACE}, 1) % 5 AS part FROM sample WHERE ({positive}) IS NOT NULL "
            f"ORDER BY hash({PLACE}) LIMIT {_ROWS}"
        )
        self._rows, positives = sample.one(
            "SELECT count(*), count(*) FILTER (WHERE is_positive) FROM judged"
        )
        if min(positives, self._rows - positives) >= _EACH:
            self._rate = positives / self._rows
            rare = f"({positive})" if self._rate <= 0.5 else f"NOT ({positive})"
            self._among = f"count(*) > 1 AND bool_or({rare})"

    def __call__(self, profile: Profile) -> Verdict:
        """The verdict on a column."""
        found = [self._sample.constant_within(profile.name, k, self._among) for k in self._keys]
        a_property = any(share >= _PROPERTY and count >= _KEYS for share, count in found)
        if self._rate is None:
            return Verdict(None, "", a_property)
        value = f"sample.{quoted(profile.name)}::VARCHAR"
        if profile.longest is not None:
            value = f"nullif({value}, '[]')"
        number = f"TRY_CAST({value} AS DOUBLE)" if _is_number(profile) else "NULL"
        self._sample.database.execute(
            "CREATE OR REPLACE TEMP TABLE alone AS SELECT judged.is_positive AS y, "
            f"judged.part AS fold, {number} AS n, {value} AS v FROM judged JOIN sample USING ({PLACE})"
        )
        return Verdict(self._auc(profile), self._pure(), a_property)

    def _auc(self, profile: Profile) -> float:
        group, aucs = "v", []
        if _is_number(profile):
            ordered = self._area(
                f"SELECT n AS score, {_COUNTS} FROM alone WHERE n IS NOT NULL GROUP BY score"
            )
            if ordered is not None:
                aucs += [ordered, 1 - ordered]
            if profile.distinct > _BINS:
                group = f"floor((rank() OVER (ORDER BY n) - 1) * {_BINS} / {self._rows})"
                group = f"CASE WHEN n IS NOT NULL THEN {group} END"
        aucs.append(
            self._area(
                f"SELECT (sum(p) OVER v - p + 5 * {self._rate}) / (sum(p + n) OVER v - p - n + 5) "
                f"AS score, p, n FROM (SELECT g, fold, {_COUNTS} FROM "
                f"(SELECT y, fold, {group} AS g FROM alone) GROUP BY g, fold) "
                "WINDOW v AS (PARTITION BY g)"
            )
        )
        return max(auc for auc in aucs if auc is not None)

    def _area(self, counts: str) -> float | None:
        """The AUC of a query for (score, p positives, n negatives): ties count half."""
        (auc,) = self._sample.one(
            "SELECT sum(p * (below + n / 2)) / nullif(sum(p) * sum(n), 0) FROM (SELECT p, n, coalesce("
            "sum(n) OVER (ORDER BY score ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS below "
            f"FROM (SELECT score, sum(p) AS p, sum(n) AS n FROM ({counts}) GROUP BY score))"
        )
        return auc

    def _pure(self) -> str:
        rows, rate = self._sample.one(
            "SELECT count(*), avg(y::INT) FROM alone WHERE v NOT IN ('0', 'false')"
        )
        if rows < _PURE_ROWS:
            return ""
        if rate >= _PURE and self._rate <= _RATE:
            return f"{rate:.1%} of the {rows:,} rows that have it are positive"
        if rate <= 1 - _PURE and self._rate >= 1 - _RATE:
            return f"{1 - rate:.1%} of the {rows:,} rows that have it are negative"
        return ""


def _is_number(profile: Profile) -> bool:
    return profile.kind in ("whole", "number") and profile.longest is None


def too_good(auc: float | None, typical: float) -> bool:
    """Whether ``auc`` is almost perfect and far above that of the ``typical`` column."""
    return auc is not None and auc >= PERFECT and 3 * (1 - auc) <= 1 - typical
