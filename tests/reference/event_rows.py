"""Rows out of an event log by plain loops over all events: slow, and plain to see."""

import math
from collections import Counter, defaultdict

PADDING = {"string": "", "int64": -1}
AGES = {"hours_before": 3600.0, "days_before": 86400.0}


class EventRows:
    """The rows of a log without sampled negatives.

    Args:
      events: one dictionary an event in the order of the files; times in seconds; None is missing.
      schema: plain values, as in YAML, not fitted.
      build: the section of the same file.
      items, users: dictionaries by id, each of columns.

    Attributes:
      rows: split -> the rows in their order, each a dictionary of values and lists; None is missing.
      ages: field -> ages of all training histories.
    """

    def __init__(self, events, schema, build, items=None, users=None):
        self.schema, self.build = schema, build
        self.tables = {"items": items or {}, "users": users or {}}
        self.events = [
            dict(event, _place=place, _label=self.label(event))
            for place, event in enumerate(events)
        ]
        self.fields = {f["name"]: f for s in schema["sequences"] for f in s["fields"]}
        kept = [e for e in self.events if self.meets(build.get("rows"), e)]
        splits = self.splits(kept)
        self.row_events = {"train": [], "valid": [], "test": []}
        for event in sorted(
            kept, key=lambda e: (e[build["time"]], str(e[build["user"]]).encode(), e["_place"])
        ):
            self.row_events[splits[event["_place"]]].append(event)
        self.rows = {
            split: [self.row(event) for event in events]
            for split, events in self.row_events.items()
        }

    def label(self, event):
        rule = self.build.get("label")
        if self.build.get("negatives"):
            return 1
        return int(event[self.schema["label"]]) if rule is None else int(self.meets(rule, event))

    def meets(self, condition, event):
        if condition is None:
            return True
        name = condition["column"]
        value = (
            event["_label"] if name == self.schema["label"] and "_label" in event else event[name]
        )
        if value is None:
            return False
        if "values" in condition:
            return str(value) in [str(v) for v in condition["values"]]
        return value >= condition["at_least"]

    def splits(self, kept):
        rule, user, time = self.build["split"], self.build["user"], self.build["time"]
        splits = {}
        if rule["by"] == "column":
            for event in kept:
                for split in ("train", "valid", "test"):
                    if event[rule["column"]] in rule.get(split, []):
                        splits[event["_place"]] = split
        elif rule["by"] == "last":
            for name in {event[user] for event in kept}:
                own = sorted(
                    (e for e in kept if e[user] == name), key=lambda e: (e[time], e["_place"])
                )
                cut = rule["valid"] + rule["test"]
                for rank, event in enumerate(own):
                    left = len(own) - rank
                    split = "test" if left <= rule["test"] else "valid" if left <= cut else "train"
                    splits[event["_place"]] = "train" if len(own) <= cut else split
        else:
            times = sorted(event[time] for event in kept)
            begins = []
            for name, share in (
                ("valid_from", rule.get("valid", 0) + rule.get("test", 0)),
                ("test_from", rule.get("test", 0)),
            ):
                if name in rule:
                    begins.append(rule[name])
                else:
                    rows = math.floor(share * len(times) + 1e-9)
                    begins.append(times[len(times) - rows] if rows else math.inf)
            for event in kept:
                split = "train"
                if event[time] >= begins[0]:
                    split = "valid"
                if event[time] >= begins[1]:
                    split = "test"
                splits[event["_place"]] = split
        return splits

    def earlier(self, row):
        """All events of the user before the row, oldest first."""
        user, time = self.build["user"], self.build["time"]
        found = []
        for event in self.events:
            if event[user] != row[user]:
                continue
            exact = self.build.get("exact_order", False) and event[time] == row[time]
            if event[time] < row[time] or (exact and event["_place"] < row["_place"]):
                found.append(event)
        return sorted(found, key=lambda e: (e[time], e["_place"]))

    def history(self, row, name):
        """The events in a sequence of the row, oldest first."""
        rule = self.build["sequences"][name]
        most = next(s["max_length"] for s in self.schema["sequences"] if s["name"] == name)
        found, where = self.earlier(row), rule.get("where")
        if "before" in rule:
            kept = self.history(row, rule["before"])
            if kept:
                found = found[: found.index(kept[0])]
            other = self.build["sequences"][rule["before"]]
            while where is None and other is not None:
                where = other.get("where")
                other = self.build["sequences"].get(other.get("before"))
        return [event for event in found if self.meets(where, event)][-most:]

    def value(self, event, column, side=None):
        """A column of an event, or of its item or user."""
        if column == self.schema["label"]:
            return event["_label"]
        if column in event and not (self.build.get("negatives") and side == "item"):
            return event[column]
        if column == self.build.get("item"):
            return event[column]
        table = "users" if side == "user" else "items"
        key = event[self.build["user" if side == "user" else "item"]]
        return self.tables[table].get(key, {}).get(column)

    def row(self, event):
        row = {
            self.schema["label"]: event["_label"],
            self.schema["group"]: event[self.build["user"]],
        }
        for feature in self.schema["features"]:
            row[feature["name"]] = self.value(event, feature["name"], feature["side"])
        for sequence in self.schema["sequences"]:
            history = self.history(event, sequence["name"])
            row[f"_{sequence['name']}"] = history
            for field in sequence["fields"]:
                column = self.build["sequences"][sequence["name"]]["fields"][field["name"]]
                if column in AGES:
                    time = self.build["time"]
                    row[field["name"]] = [(event[time] - e[time]) / AGES[column] for e in history]
                else:
                    row[field["name"]] = [self.value(e, column) for e in history]
        return row

    def vocabulary(self, table):
        """Values of a table, commonest first; an event counts once for each of its columns."""
        dtype = self.schema["tables"][table].get("dtype", "string")
        rule = (self.build.get("tables") or {}).get(table, {})
        seen = defaultdict(set)  # column -> places of events
        for event in self.row_events["train"]:
            for feature in self.schema["features"]:
                if feature.get("table") == table:
                    seen[feature["name"], feature["side"]].add(event["_place"])
        for row in self.rows["train"]:
            for sequence in self.schema["sequences"]:
                for field in sequence["fields"]:
                    if field.get("table") == table:
                        column = self.build["sequences"][sequence["name"]]["fields"][field["name"]]
                        side = "item" if column not in self.events[0] else "event"
                        side = next((s for c, s in seen if c == column), side)
                        seen[column, side] |= {e["_place"] for e in row[f"_{sequence['name']}"]}
        counts = Counter()
        for (column, side), places in seen.items():
            for place in places:
                value = self.value(self.events[place], column, side)
                for one in value if isinstance(value, list) else [value]:
                    if one is not None and one != PADDING[dtype]:
                        counts[str(one) if dtype == "string" else one] += 1
        kept = [value for value in counts if counts[value] >= rule.get("min_count", 1)]
        return sorted(kept, key=lambda v: (-counts[v], v))[: rule.get("max_size")]

    def statistics(self, feature):
        """(mean, deviation) of a number over the training rows, or over their histories."""
        values = []
        for row in self.rows["train"]:
            value = row[feature["name"]]
            values += value if isinstance(value, list) else [value]
        values = [v for v in values if v is not None]
        if feature.get("transform") == "log1p":
            values = [math.log1p(value) for value in values]
        mean = sum(values) / len(values)
        return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
