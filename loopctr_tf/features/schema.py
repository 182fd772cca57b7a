"""The feature schema: what a row holds, as frozen settings that are read from and written to YAML.

A schema names the label, the column that GAUC groups by, the embedding tables (how a raw value finds
its row), the global features and the behaviour sequences; with ``weight: COLUMN`` also the rows' weights
in the training loss::

    version: 1
    label: label
    group: user_id
    tables:
      movie: {dtype: string, vocabulary: vocab/movie.txt, oov_buckets: 1}
      genre: {dtype: string, vocabulary: [Action, Comedy, Drama]}
      zip: {dtype: string, hash_buckets: 1000}
      cover: {vocabulary: vocab/movie.txt, vectors: vectors/cover.npy, trainable: false}
    features:
      - {name: movie_id, type: categorical, side: item, table: movie}
      - {name: genres, type: multi_categorical, side: item, table: genre, max_values: 6}
      - {name: age, type: numeric, side: user, mean: 33.0, std: 12.1, default: 33.0}
    sequences:
      - name: history
        max_length: 50
        fields:
          - {name: history_movie_id, type: categorical, table: movie}
      - name: long_history
        max_length: 500
        compress: true
        fields:
          - {name: long_history_movie_id, type: categorical, table: movie}

A feature is made of the raw column of its own name, or of ``column``, which may have any name.
Tables may be shared between features and sequence fields. A vocabulary is a list in place or a text file
beside the schema, one value a line. Pretrained vectors are a NumPy file beside it (``numpy.save``), one
row a value of the vocabulary.
"""

import keyword
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import yaml
from pydantic import Field, model_validator

from loopctr_tf.errors import UsageError
from loopctr_tf.features.columns import (
    CANDIDATE_SIDES,
    KINDS,
    SIDES,
    AnyFeature,
    Feature,
    Sequence,
    Table,
)
from loopctr_tf.features.inputs import Input, counts_name, feature_input, length_input
from loopctr_tf.features.vectors import read_vectors
from loopctr_tf.settings import Settings, listing, mapping, read_yaml

VERSION = 1
FILE_NAME = "schema.yaml"


class Schema(Settings):
    """Everything the library knows of a data set's columns. See the module's text for the YAML."""

    what: ClassVar[str] = "schema key"

    label: str
    """Column of the label, 0 or 1."""
    group: Any
    """Column that GAUC groups by; need not be a feature."""
    weight: str | None = None
    """Column of a row's weight in the training loss, a number from 0 on; null weighs rows alike. Figures
    of quality do not read it."""
    tables: Annotated[tuple[Table, ...], Field(strict=False)] = ()
    """Embedding tables."""
    features: Annotated[tuple[AnyFeature, ...], Field(strict=False)]
    """Global features, at least one of them of an item or cross side."""
    sequences: Annotated[tuple[Sequence, ...], Field(strict=False)]
    """Behaviour sequences, at least one."""

    @model_validator(mode="after")
    def _check(self):
        if not self.features:
            raise UsageError("the schema has no features; list at least one")
        if not self.sequences:
            raise UsageError(
                "the schema has no sequences; LoopCTR reads at least one: it needs the histories "
                "of users, which a log without user and time (such as Criteo's or Avazu's) does not have"
            )
        _check_unique([table.name for table in self.tables], "table")
        columns = [f.name for f in self.all_fields()]
        columns += [sequence.length_name for sequence in self.sequences]
        counts = [
            counts_name(field.name)
            for sequence in self.sequences
            for field in sequence.fields
            if field.type == "multi_categorical"
        ]
        weight = [] if self.weight is None else [self.weight]
        _check_unique([*columns, *counts, self.label, *weight], "column")
        _check_unique([sequence.name for sequence in self.sequences], "sequence")
        _check_plain([table.name for table in self.tables], "table")
        _check_plain([sequence.name for sequence in self.sequences], "sequence")
        _check_input_names(columns)
        if not self.candidate_features:
            raise UsageError(
                "the schema has no item or cross feature; list at least one, candidates must differ"
            )
        self._check_group()
        for feature in self.features:
            if feature.side is None:
                raise UsageError(
                    f"feature {feature.name!r} has no side; give one of {', '.join(SIDES)}"
                )
        names = {table.name for table in self.tables}
        for feature in self.all_fields():
            if feature.table is not None and feature.table not in names:
                raise UsageError(
                    f"feature {feature.name!r} names table {feature.table!r}, which does not "
                    f"exist; tables are {', '.join(sorted(names)) or 'none'}"
                )
        used = {feature.table for feature in self.all_fields()}
        for name in names - used:
            raise UsageError(f"table {name!r} is used by no feature; drop it or use it")
        return self

    def _check_group(self):
        remedy = "name the column that GAUC groups by"
        if not isinstance(self.group, str) or not self.group:
            raise UsageError(f"group is {self.group!r}; {remedy}")
        for name, what in ((self.label, "label"), (self.weight, "weight")):
            if self.group == name:
                raise UsageError(f"group is {self.group!r}, the {what}; {remedy}")
        one_valued = {f.name for f in self.features if f.type != "multi_categorical"}
        if self.group in {f.name for f in self.all_fields()} - one_valued:
            raise UsageError(
                f"group is {self.group!r}, which has many values a row; name a column with one"
            )

    def all_fields(self) -> Iterable[Feature]:
        """Global features, then the fields of every sequence."""
        yield from self.features
        for sequence in self.sequences:
            yield from sequence.fields

    def table(self, name: str) -> Table:
        """The table of that name."""
        return next(table for table in self.tables if table.name == name)

    @property
    def request_features(self) -> tuple[Feature, ...]:
        """User and context features: one value a request."""
        return tuple(f for f in self.features if f.side not in CANDIDATE_SIDES)

    @property
    def candidate_features(self) -> tuple[Feature, ...]:
        """Item and cross features: one value a candidate."""
        return tuple(f for f in self.features if f.side in CANDIDATE_SIDES)

    @property
    def group_dtype(self) -> str:
        """Type of the group column: its table's where it is a feature, else string."""
        for feature in self.features:
            if feature.name == self.group and feature.table is not None:
                return self.table(feature.table).dtype
        return "string"

    @cached_property
    def inputs(self) -> dict[str, Input]:
        """Every input of the model by name: request features, candidate features, sequences."""
        found = [
            feature_input(feature, self._table_of(feature))
            for feature in (*self.request_features, *self.candidate_features)
        ]
        for sequence in self.sequences:
            found += [
                feature_input(field, self._table_of(field), sequence) for field in sequence.fields
            ]
            found.append(length_input(sequence))
        return {each.name: each for each in found}

    def _table_of(self, feature: Feature) -> Table | None:
        return None if feature.table is None else self.table(feature.table)

    def require_vectors(self) -> None:
        """UsageError for a table that is not trainable and whose rows start from nothing."""
        for table in self.tables:
            if not table.trainable and table.vectors is None:
                raise UsageError(
                    f"table {table.name!r} is not trainable and has no vectors, so that its rows would "
                    "stay random; give vectors, or trainable: true"
                )

    def to_dict(self) -> dict[str, Any]:
        """The schema with its vocabularies, without vectors, as plain values, ready for JSON or YAML."""
        return {
            "version": VERSION,
            "label": self.label,
            "group": self.group,
            **({} if self.weight is None else {"weight": self.weight}),
            "tables": {table.name: _plain(table, skip="name") for table in self.tables},
            "features": [_plain(feature) for feature in self.features],
            "sequences": [
                {**_plain(sequence, skip="fields"), "fields": [_plain(f) for f in sequence.fields]}
                for sequence in self.sequences
            ],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], folder: str | Path | None = None) -> "Schema":
        """The inverse of :meth:`to_dict`.

        Args:
          values: the mapping; a table's vocabulary and its vectors may be file names.
          folder: where these files are looked for.

        Raises:
          UsageError: for an unknown or missing key, a bad value, or a file that is absent.
        """
        values = mapping(values, "schema")
        version = values.pop("version", VERSION)
        if version != VERSION:
            raise UsageError(f"schema version is {version!r}; this library reads {VERSION}")
        tables = []
        for name, table in mapping(values.get("tables") or {}, "tables").items():
            table = {**mapping(table, f"table {name!r}"), "name": name}
            if isinstance(table.get("vocabulary"), str):
                table["vocabulary"] = _read_vocabulary(
                    table["vocabulary"], folder, table.get("dtype", "string"), name
                )
            if isinstance(table.get("vectors"), str):
                path = Path(folder or ".") / table["vectors"]
                table["vectors"] = read_vectors(path, f"table {name!r}: vectors")
            tables.append(Table(**table))
        values["tables"] = tables
        for name in ("features", "sequences"):
            if name not in values:
                raise UsageError(f"the schema has no {name!r}; add it")
        values["features"] = _features(values["features"], "features")
        values["sequences"] = [
            _sequence(each) for each in listing(values["sequences"], "sequences")
        ]
        return cls(**values)

    @classmethod
    def load(cls, path: str | Path) -> "Schema":
        """Reads a schema from a YAML file, or from the ``schema.yaml`` of a folder.

        A section ``build``, which says how rows are made of events, is passed over.
        """
        schema, _ = load_with_build(path)
        return schema

    def save(self, folder: str | Path) -> None:
        """Writes ``schema.yaml`` into ``folder``, ``vocab/<table>.txt`` and ``vectors/<table>.npy``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        values = self.to_dict()
        for table in self.tables:
            if table.vocabulary is None:
                continue
            name = f"vocab/{table.name}.txt"
            (folder / "vocab").mkdir(exist_ok=True)
            (folder / name).write_text(
                "".join(f"{value}\n" for value in table.vocabulary), encoding="utf-8"
            )
            values["tables"][table.name]["vocabulary"] = name
            if table.vectors is not None:
                name = f"vectors/{table.name}.npy"
                (folder / "vectors").mkdir(exist_ok=True)
                np.save(folder / name, table.vectors)
                values["tables"][table.name]["vectors"] = name
        (folder / FILE_NAME).write_text(
            yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )


def load_with_build(path: str | Path) -> tuple[Schema, Any]:
    """:meth:`Schema.load`, and the section ``build`` of the file, unchecked; None without it."""
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
    values = read_yaml(path, "schema")
    build = values.pop("build", None)
    return Schema.from_dict(values, folder=path.parent), build


def json_schema() -> dict[str, Any]:
    """JSON schema of ``schema.yaml``, for editors, with the rules of the section ``build`` left open."""
    found = Schema.model_json_schema()
    table = found["$defs"]["Table"]
    del table["properties"]["name"]
    table["required"].remove("name")
    for kind in KINDS.values():
        found["$defs"][kind.__name__]["required"].append("type")
    found["properties"]["tables"] = {
        "type": "object",
        "additionalProperties": {"$ref": "#/$defs/Table"},
    }
    found["properties"]["group"] |= {"type": "string"}
    found["properties"] |= {"version": {"const": VERSION}, "build": {"type": "object"}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def _features(values: Any, where: str) -> list[Feature]:
    given = [mapping(each, "a feature") for each in listing(values, where)]
    return [Feature(**{k: v for k, v in each.items() if v is not None}) for each in given]


def _sequence(values: Any) -> Sequence:
    values = mapping(values, "a sequence")
    where = f"sequence {values.get('name')!r}: fields"
    return Sequence(**{**values, "fields": _features(values.get("fields"), where)})


def _read_vocabulary(name: str, folder, dtype: str, table: str) -> tuple[str | int, ...]:
    path = Path(folder or ".") / name
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UsageError(
            f"table {table!r}: vocabulary file {str(path)!r} cannot be read: {error.strerror}"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"table {table!r}: vocabulary file {str(path)!r} is not UTF-8 text; convert it"
        ) from error
    if lines and lines[-1] == "":
        lines.pop()
    if dtype == "string":
        return tuple(lines)
    try:
        return tuple(int(line) for line in lines)
    except ValueError as error:
        raise UsageError(
            f"table {table!r}: vocabulary file {str(path)!r} holds a line that is not an int64 "
            f"({error}); use dtype: string"
        ) from error


def _check_unique(names: list[str], what: str) -> None:
    for name in names:
        if not name:
            raise UsageError(f"{what} name {name!r} is not text; give a name")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(f"{what} name {sorted(twice)[0]!r} is used twice; names must be unique")


def _check_input_names(names: list[str]) -> None:
    """Names become inputs of the SavedModel's signatures, which are arguments of a function."""
    folded = [name.lower() for name in names]
    for name in names:
        taken = name in ("self", "inputs", "refine_top_k") or name.startswith("state_")
        if not (name.isascii() and name.isidentifier()) or keyword.iskeyword(name) or taken:
            raise UsageError(
                f"column name {name!r} cannot be the name of a model input; rename it: letters, digits "
                "and '_', no Python keyword, not self, inputs, refine_top_k or state_..."
            )
        if folded.count(name.lower()) > 1:
            raise UsageError(
                f"column name {name!r} differs from another in case alone; rename one of them"
            )


def _check_plain(names: list[str], what: str) -> None:
    """Names become names of variables and files."""
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise UsageError(
                f"{what} name {name!r} must be letters, digits, '_', '-' and '.', a letter or "
                "digit first; rename it"
            )


def _plain(value: Settings, skip: str = "") -> dict[str, Any]:
    """The settings that differ from their defaults, and the type of a feature, as plain values."""
    result = {}
    for name, field in type(value).model_fields.items():
        item = getattr(value, name)
        if not field.exclude and name != skip and (item != field.default or name == "type"):
            result[name] = list(item) if isinstance(item, tuple) else item
    return result
