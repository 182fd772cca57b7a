"""The made-up shop that every user visits: its items, how popular they are, and the options of a run."""

from dataclasses import dataclass, fields

import numpy as np

from loopctr_tf.errors import UsageError

DAY = 86_400_000
"""Milliseconds."""
START = 1_767_571_200_000
"""The first moment of the period whose impressions become rows: 5 January 2026, 0:00 UTC, a Monday."""
DAYS, VALID_DAY, TEST_DAY = 9, 7, 8
"""Days of the period; the day numbers, from 0, of validation and test."""
DEPARTMENTS, REGIONS, CITIES, OCCUPATIONS, TAGS = 8, 8, 200, 12, 60
GENDERS = ("", "f", "m")
SHIPPING = ("free", "paid", "pickup")
MAX_TAGS = 4
BLOCK_USERS, BLOCK_ROWS = 1000, 10_000
"""Most users and (on average) rows that are simulated at a time."""
MOST_ROWS_PER_USER = 1000


@dataclass(frozen=True)
class Options:
    """What is simulated; the same options give the same bytes.

    Attributes:
      rows: impressions over all users and days.
      users: people, each with at least one impression.
      items: things on sale.
      short: most events of the short sequence.
      long: most events of the long one, those before the short one's.
      seed: of every random number.
    """

    rows: int = 100_000
    users: int = 10_000
    items: int = 20_000
    short: int = 50
    long: int = 1024
    seed: int = 1

    def __post_init__(self):
        least = {"rows": 1000, "users": 1, "items": 100, "short": 1, "long": 1, "seed": 0}
        for field in fields(self):
            value = getattr(self, field.name)
            if value < least[field.name]:
                raise UsageError(f"{field.name} is {value}; give {least[field.name]} or more")
        if self.rows < self.users:
            raise UsageError(
                f"rows is {self.rows} and users is {self.users}; everybody has a row at least, give "
                "fewer users or more rows"
            )
        if self.rows > MOST_ROWS_PER_USER * self.users:
            raise UsageError(
                f"rows is {self.rows} and users is {self.users}, over {MOST_ROWS_PER_USER} rows a "
                "user; give more users"
            )

    @property
    def blocks(self) -> int:
        """Blocks of users that are simulated one by one."""
        by_rows, by_users = -(-self.rows // BLOCK_ROWS), -(-self.users // BLOCK_USERS)
        return min(max(by_rows, by_users), self.users)

    def share(self, total: int, block: int) -> range:
        """Which of ``total`` numbered things belong to a block."""
        return range(total * block // self.blocks, total * (block + 1) // self.blocks)


def zipf(count: np.ndarray | int, uniform: np.ndarray) -> np.ndarray:
    """Ranks in [0, count) from uniform numbers: P(rank r) ~ log(1 + 1 / (r + 1)), so about 1 / r."""
    rank = np.floor(np.power(np.asarray(count) + 1.0, uniform)).astype(np.int64) - 1
    return np.minimum(rank, np.asarray(count) - 1)


class World:
    """Items and their attributes; memory grows with the number of items alone.

    Attributes (of items, each [items]):
      category, shop, brand, region, shipping: int32 codes. Category c belongs to department
        ``c % DEPARTMENTS``; lower categories are larger and more popular.
      price, rating, discount, sales, listed_days: float32; NaN where a rating or discount is missing.
      tags, tag_splits: codes of item i are ``tags[tag_splits[i]:tag_splits[i + 1]]``.
      categories, shops, brands: how many there are.
    """

    def __init__(self, options: Options):
        rng = np.random.default_rng([options.seed, 0])
        items = options.items
        self.categories = int(np.clip(items // 100, 10, 400))
        self.shops = max(10, items // 20)
        self.brands = int(np.clip(items // 50, 20, 2000))
        self._draw_categories(rng, items)
        self._draw_attributes(rng, items)

    def _draw_categories(self, rng, items: int) -> None:
        weight = 1.0 / (np.arange(self.categories) + 3)
        self.category_share = np.cumsum(weight / weight.sum())
        at_random = self.popular_category(rng.random(items - self.categories))
        self.category = np.concatenate([np.arange(self.categories), at_random]).astype(np.int32)
        rng.shuffle(self.category)
        # Inside a category the items are in order of popularity, the first one's the highest.
        self._by_category = np.argsort(self.category, kind="stable")
        self._size = np.bincount(self.category, minlength=self.categories)
        self._start = np.cumsum(self._size) - self._size

    def _draw_attributes(self, rng, items: int) -> None:
        self.shop = self._special(rng, self.shops)
        self.brand = self._special(rng, self.brands)
        self.region = (self.shop % REGIONS).astype(np.int32)
        self.shipping = rng.choice(len(SHIPPING), items, p=[0.5, 0.4, 0.1]).astype(np.int32)
        level = rng.normal(3.5, 0.6, self.categories)[self.category]
        self.price = _cents(np.exp(level + rng.normal(0, 0.4, items)))
        self.rating = _missing(rng, np.round(np.clip(rng.normal(4.0, 0.6, items), 1, 5), 1), 0.2)
        self.discount = _missing(rng, np.round(rng.uniform(0.05, 0.6, items), 2), 0.5)
        rank = np.empty(items)
        rank[self._by_category] = np.arange(items) - np.repeat(self._start, self._size)
        self.sales = np.floor(5000 / (rank + 1) * np.exp(rng.normal(0, 0.3, items))).astype(
            np.float32
        )
        self.listed_days = np.floor(rng.exponential(400, items)).astype(np.float32)
        counts = rng.integers(0, MAX_TAGS + 1, items)
        self.tag_splits = np.concatenate([[0], np.cumsum(counts)])
        # Half of the tags are those of the category, so that they say something.
        own = (np.repeat(self.category, counts) * 7 + rng.integers(0, 3, counts.sum())) % TAGS
        other = zipf(TAGS, rng.random(counts.sum()))
        self.tags = np.where(rng.random(counts.sum()) < 0.5, own, other).astype(np.int32)

    def _special(self, rng, count: int) -> np.ndarray:
        """Codes below ``count`` for all items: most makers and sellers keep to one category."""
        items, own = len(self.category), max(1, count // self.categories)
        special = self.category * own + zipf(own, rng.random(items))
        anyone = rng.integers(0, count, items)
        return np.where(rng.random(items) < 0.8, special % count, anyone).astype(np.int32)

    def popular_category(self, uniform: np.ndarray) -> np.ndarray:
        """Categories by their popularity, from uniform numbers."""
        found = np.searchsorted(self.category_share, uniform, side="right")
        return np.minimum(found, self.categories - 1)

    def category_of_department(self, department: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Categories of the departments given, by their popularity."""
        count = (self.categories - 1 - department) // DEPARTMENTS + 1
        return department + DEPARTMENTS * zipf(count, uniform)

    def item_of_category(self, category: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Items of the categories given, by their popularity."""
        return self._by_category[self._start[category] + zipf(self._size[category], uniform)]


def _cents(values: np.ndarray) -> np.ndarray:
    return np.maximum(np.round(values, 2), 0.01).astype(np.float32)


def _missing(rng, values: np.ndarray, share: float) -> np.ndarray:
    """``values`` as float32 with a share of them NaN."""
    return np.where(rng.random(len(values)) < share, np.nan, values).astype(np.float32)


class Users:
    """The people of one block. Each attribute has shape [users].

    Attributes:
      first: number of the first of them.
      gender, occupation, membership, city: int codes; 0 of ``gender`` is unknown. The region of a city
        is ``city % REGIONS``.
      age, budget: float32, NaN where unknown. account_days: float32.
      preference: float64 [users, DEPARTMENTS], lasting tastes, cumulative.
      declared: bool [users, DEPARTMENTS], favourites that the user has named, three at most.
    """

    def __init__(self, count: int, first: int, rng):
        self.first, self.count = first, count
        self.gender = rng.choice(3, count, p=[0.1, 0.5, 0.4])
        self.occupation = zipf(OCCUPATIONS, rng.random(count))
        self.membership = rng.choice(3, count, p=[0.6, 0.3, 0.1])
        self.city = zipf(CITIES, rng.random(count))
        self.age = _missing(rng, np.round(np.clip(rng.normal(38, 13, count), 14, 90)), 0.1)
        self.budget = _missing(rng, _cents(np.exp(rng.normal(3.5, 0.5, count))), 0.15)
        self.account_days = np.floor(rng.exponential(700, count)).astype(np.float32)
        taste = rng.gamma(0.3, size=(count, DEPARTMENTS)) + 1e-9
        taste /= taste.sum(axis=1, keepdims=True)
        self.preference = np.cumsum(taste, axis=1)
        named = np.argsort(-taste - 0.2 * rng.random(taste.shape), axis=1)[:, :3]
        said = rng.random((count, 3)) < 0.5
        self.declared = np.zeros((count, DEPARTMENTS), bool)
        np.put_along_axis(self.declared, named, said, axis=1)
