"""A simulated block as columns: rows with their histories, or a plain log of events; and side tables."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from synthetic_truth import PAGES
from synthetic_users import Block
from synthetic_world import (
    CITIES,
    DAY,
    DEPARTMENTS,
    GENDERS,
    OCCUPATIONS,
    REGIONS,
    SHIPPING,
    START,
    TAGS,
    Options,
    Users,
    World,
)

from loopctr_tf.features.columns import PADDING
from loopctr_tf.prepare.spans import flat_spans

TEXTS = {
    "gender": GENDERS,
    "membership": ("basic", "silver", "gold"),
    "device": ("phone", "tablet", "desktop"),
    "os": ("ios", "android", "ios", "android", "windows", "macos"),  # two for each device
    "network": (PADDING["string"], "wifi", "4g", "5g"),
    "page": PAGES,
    "shipping": SHIPPING,
    "gender_department": [f"{g or 'x'}_d{d}" for g in GENDERS for d in range(DEPARTMENTS)],
    "event": ("impression", "action"),
}


@dataclass(frozen=True)
class Column:
    """One value or one list a row.

    Attributes:
      values: with ``codes`` the names; else float32, one number a row, NaN where missing.
      codes: int32, places in ``values``.
      splits: list i is ``splits[i]:splits[i + 1]`` of the codes; None means one value each.
    """

    values: pa.Array | np.ndarray
    codes: np.ndarray | None = None
    splits: np.ndarray | None = None


Columns = dict[str, Column]


class ColumnMaker:
    """Makes the columns of schema.yaml.

    Attributes:
      world: whose things have names here.
      names: the values of categories, Arrow large strings or int64; every column but the user's id
        holds codes of one of these.
    """

    def __init__(self, world: World):
        self.world = world
        numbered = {
            "item": ("i", len(world.category)),
            "shop": ("s", world.shops),
            "brand": ("b", world.brands),
            "department": ("d", DEPARTMENTS),
            "city": ("city", CITIES),
            "region": ("r", REGIONS),
            "occupation": ("o", OCCUPATIONS),
            "tag": ("t", TAGS),
        }
        self.names = {name: _texts(texts) for name, texts in TEXTS.items()}
        for name, (letter, count) in numbered.items():
            self.names[name] = _texts([f"{letter}{number}" for number in range(count)])
        # Categories that are whole numbers: a code is the value.
        self.names["whole"] = pa.array(np.arange(max(24, world.categories)))

    def _coded(self, name: str, codes: np.ndarray, splits: np.ndarray | None = None) -> Column:
        return Column(self.names[name], codes.astype(np.int32), splits)

    def rows(self, block: Block, index: np.ndarray, options: Options) -> Columns:
        """The features and sequence fields of schema.yaml and the user's id, for the rows ``index``."""
        row = {name: values[index] for name, values in block.rows.items()}
        short, long = options.short, options.long
        return {
            "user_id": _user_ids(block.users, row["user"]),
            **self._user_columns(block.users, row["user"]),
            **self._shown_columns(block.users, row),
            **self._item_columns(row["item"]),
            **self._sequence("history", block, row, 0, short),
            **self._sequence("long_history", block, row, short, short + long),
        }

    def events(self, block: Block) -> pa.Table:
        """All events of a block in the order of time: impressions, and what people did unasked.

        ``label`` is 1 where an action was taken, so that histories are the events of label 1.
        """
        row = block.rows
        real = np.arange(block.own.shape[1]) < block.count[:, None]
        user, place = np.nonzero(block.own & real)
        shown = len(row["user"])
        users = np.concatenate([row["user"], user])
        time = np.concatenate([row["time"], block.time[user, place]])
        action = np.concatenate([row["label"], block.action[user, place]]).astype(np.int64)
        columns = {
            "user_id": _arrow(_user_ids(block.users, users)),
            "item_id": _arrow(
                self._coded("item", np.concatenate([row["item"], block.item[user, place]]))
            ),
            "time": pa.array(time),
            "event": _arrow(self._coded("event", np.arange(len(users)) >= shown)),
            # A click on an impression is that impression's action.
            "action": pa.array(action),
            "label": pa.array((action > 0).astype(np.int64)),
        }
        for name, column in self._shown_columns(block.users, row).items():
            known = _arrow(column)
            # What nobody was shown is not described.
            unknown = pa.nulls(len(user), known.type)
            columns[name] = pa.concat_arrays([known, unknown])
        return pa.table(columns).take(pa.array(np.lexsort((users, time))))

    def truth(self, block: Block) -> pa.Table:
        """The probability of every impression, in the order of time."""
        row = block.rows
        return pa.table(
            {
                "user_id": _arrow(_user_ids(block.users, row["user"])),
                "time": pa.array(row["time"]),
                "probability": pa.array(row["probability"]),
            }
        )

    def items(self) -> pa.Table:
        """The side table of items."""
        columns = self._item_columns(np.arange(len(self.world.category)))
        return pa.table({name: _arrow(column) for name, column in columns.items()})

    def users(self, users: Users) -> pa.Table:
        """The side table of a block's users."""
        everybody = np.arange(users.count)
        columns = {
            "user_id": _user_ids(users, everybody),
            **self._user_columns(users, everybody),
        }
        return pa.table({name: _arrow(column) for name, column in columns.items()})

    def _user_columns(self, users: Users, place: np.ndarray) -> Columns:
        who, departments = np.nonzero(users.declared[place])
        return {
            "age": Column(users.age[place]),
            "gender": self._coded("gender", users.gender[place]),
            "city": self._coded("city", users.city[place]),
            "region": self._coded("region", users.city[place] % REGIONS),
            "occupation": self._coded("occupation", users.occupation[place]),
            "membership": self._coded("membership", users.membership[place]),
            "budget": Column(users.budget[place]),
            "account_days": Column(users.account_days[place]),
            "favourite_departments": self._coded(
                "department", departments, np.searchsorted(who, np.arange(len(place) + 1))
            ),
        }

    def _shown_columns(self, users: Users, row: dict[str, np.ndarray]) -> Columns:
        """What there is to say of an impression beside its user and its item."""
        department = self.world.category[row["item"]] % DEPARTMENTS
        return {
            "activity": Column(row["before"].astype(np.float32)),
            "hour": self._coded("whole", row["hour"]),
            "weekday": self._coded("whole", (row["time"] - START) // DAY % 7),
            "device": self._coded("device", row["device"]),
            "os": self._coded("os", 2 * row["device"] + row["system"]),
            "network": self._coded("network", row["network"]),
            "page": self._coded("page", row["page"]),
            "days_since_last": Column(row["days_since_last"]),
            "price_to_budget": Column(row["price_to_budget"]),
            "gender_department": self._coded(
                "gender_department", users.gender[row["user"]] * DEPARTMENTS + department
            ),
            "same_region": self._coded("whole", row["same_region"]),
            "category_events": Column(row["category_events"].astype(np.float32)),
        }

    def _item_columns(self, item: np.ndarray) -> Columns:
        world = self.world
        tags, splits = flat_spans(world.tag_splits[item], world.tag_splits[item + 1])
        return {
            "item_id": self._coded("item", item),
            "category": self._coded("whole", world.category[item]),
            "department": self._coded("department", world.category[item] % DEPARTMENTS),
            "shop": self._coded("shop", world.shop[item]),
            "brand": self._coded("brand", world.brand[item]),
            "price": Column(world.price[item]),
            "rating": Column(world.rating[item]),
            "discount": Column(world.discount[item]),
            "listed_days": Column(world.listed_days[item]),
            "sales": Column(world.sales[item]),
            "shipping": self._coded("shipping", world.shipping[item]),
            "item_tags": self._coded("tag", world.tags[tags], splits),
        }

    def _sequence(self, name, block: Block, row, newest: int, oldest: int) -> Columns:
        """Fields of the events that are ``newest`` to ``oldest`` places back from the row's moment."""
        width = block.item.shape[1]
        start, end = (np.maximum(row["before"] - back, 0) for back in (oldest, newest))
        places, splits = flat_spans(row["user"] * width + start, row["user"] * width + end)
        item = block.item.ravel()[places]
        category = self.world.category[item]
        return {
            f"{name}_item_id": self._coded("item", item, splits),
            f"{name}_category": self._coded("whole", category, splits),
            f"{name}_department": self._coded("department", category % DEPARTMENTS, splits),
            f"{name}_action": self._coded("whole", block.action.ravel()[places], splits),
        }


def _user_ids(users: Users, place: np.ndarray) -> Column:
    names = _texts([f"u{users.first + number}" for number in range(users.count)])
    return Column(names, place.astype(np.int32))


def _texts(values) -> pa.Array:
    return pa.array(values, pa.large_string())


def _arrow(column: Column) -> pa.Array:
    """The column as an Arrow array; a missing number is null."""
    if column.codes is None:
        return pa.array(column.values, pa.float32(), from_pandas=True)
    values = column.values.take(pa.array(column.codes))
    if column.splits is None:
        return values
    return pa.ListArray.from_arrays(pa.array(column.splits, pa.int32()), values)
