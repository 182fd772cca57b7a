"""The feature schema: what a row holds, as frozen dataclasses that are read from and kept as YAML.

A schema names the label, the column that GAUC groups by, the embedding tables (how a raw value finds
its row), the global features and the behaviour sequences::

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

Tables may be shared between features and sequence fields. A vocabulary is a list in place or a text file
beside the schema, one value a line. Pretrained vectors are a NumPy file beside it (``numpy.save``), one
row a value of the vocabulary.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from loopctr_tf.errors import UsageError
from loopctr_tf.features.checks import (
    finite,
    input_names,
    is_int64,
    known_keys,
    listing,
    mapping,
    one_of,
    plain_names,
    positive,
    unique_names,
)
from loopctr_tf.features.vectors import checked_vectors, read_vectors

VERSION = 1
FILE_NAME = "schema.yaml"
TYPES = ("categorical", "multi_categorical", "numeric")
REQUEST_SIDES = ("user", "context")
CANDIDATE_SIDES = ("item", "cross")
SIDES = REQUEST_SIDES + CANDIDATE_SIDES
PADDING = {"string": "", "int64": -1}
"""The value of a table's dtype that stands for "nothing" in a multi-valued feature."""


@dataclass(frozen=True)
class Table:
    """An embedding table and the rule that leads from a raw value to its row.

    Attributes:
      name: unique name.
      dtype: "string" or "int64", the type of raw values.
      vocabulary: known values in row order; None hashes every value.
      oov_buckets: rows, behind the vocabulary, that unknown values are hashed to; at least 1.
      hash_buckets: rows of a table without vocabulary.
      dim: width; None takes that of ``vectors``, or else the model's ``embedding_dim``.
      trainable: false keeps the rows as they start. Without ``vectors`` such a table can hold weights
        that are loaded, and nothing can be trained with it.
      vectors: float32 [len(vocabulary), dim], what the rows of known values start from, in the order of
        the vocabulary; the rows of unknown values start from zero. Not compared, and not in
        ``to_dict``: there is a file of its own for it.
    """

    name: str
    dtype: str = "string"
    vocabulary: tuple[str | int, ...] | None = None
    oov_buckets: int = 1
    hash_buckets: int | None = None
    dim: int | None = None
    trainable: bool = True
    vectors: np.ndarray | None = dataclasses.field(default=None, compare=False, repr=False)

    def __post_init__(self):
        where = f"table {self.name!r}"
        one_of(self.dtype, PADDING, f"{where}: dtype")
        if (self.vocabulary is None) == (self.hash_buckets is None):
            raise UsageError(f"{where} needs either a vocabulary or hash_buckets, and not both")
        if self.vocabulary is None:
            positive(self.hash_buckets, f"{where}: hash_buckets")
        else:
            object.__setattr__(self, "vocabulary", _checked_vocabulary(self))
            positive(self.oov_buckets, f"{where}: oov_buckets")
        if self.dim is not None:
            positive(self.dim, f"{where}: dim")
        if not isinstance(self.trainable, bool):
            raise UsageError(f"{where}: trainable is {self.trainable!r}; write true or false")
        if self.vectors is not None:
            self._take_vectors(f"{where}: vectors")

    def _take_vectors(self, where: str) -> None:
        if self.vocabulary is None:
            raise UsageError(f"{where} need a vocabulary, which names their rows; give one")
        vectors = checked_vectors(self.vectors, len(self.vocabulary), self.dim, where)
        object.__setattr__(self, "vectors", vectors)
        object.__setattr__(self, "dim", vectors.shape[1])

    @property
    def rows(self) -> int:
        """Rows of the embedding table, unknown values' rows included."""
        if self.vocabulary is None:
            return self.hash_buckets
        return len(self.vocabulary) + self.oov_buckets


@dataclass(frozen=True)
class Feature:
    """One column: a global feature, or a field of a sequence (then without ``side``).

    Attributes:
      name: column name, unique over the schema.
      type: "categorical" (one value), "multi_categorical" (up to ``max_values`` values, their
        embeddings averaged) or "numeric" (one number, standardised).
      side: "user" or "context" (one value a request), "item" or "cross" (one a candidate).
      table: embedding table of a categorical feature.
      max_values: most values of a multi-valued feature in a DataFrame; more are an error there,
        while a request may send any width.
      transform: "none" or "log1p", applied to a number before it is standardised.
      mean, std: of the transformed training values; the token is (x - mean) / std.
      default: number that stands for a missing one.
    """

    name: str
    type: str
    side: str | None = None
    table: str | None = None
    max_values: int | None = None
    transform: str = "none"
    mean: float = 0.0
    std: float = 1.0
    default: float = 0.0

    def __post_init__(self):
        where = f"feature {self.name!r}"
        one_of(self.type, TYPES, f"{where}: type")
        if self.side is not None:
            one_of(self.side, SIDES, f"{where}: side")
        if self.type == "numeric":
            one_of(self.transform, ("none", "log1p"), f"{where}: transform")
            for name in ("mean", "std", "default"):
                number = finite(getattr(self, name), f"{where}: {name}")
                object.__setattr__(self, name, number)
            if self.std <= 0:
                raise UsageError(f"{where}: std is {self.std!r}; give a positive number")
            if self.table is not None:
                raise UsageError(f"{where} is numeric and names table {self.table!r}; drop `table`")
        elif self.table is not None and not isinstance(self.table, str):
            raise UsageError(f"{where}: table is {self.table!r}; give the name of one table")
        elif self.table is None:
            raise UsageError(f"{where} is {self.type} and names no table; add `table: ...`")
        if self.type == "multi_categorical":
            positive(self.max_values, f"{where}: max_values")
        elif self.max_values is not None:
            raise UsageError(f"{where} is {self.type} and has max_values; drop it")


@dataclass(frozen=True)
class Sequence:
    """A behaviour sequence of the user: events oldest first, one token an event.

    Attributes:
      name: unique name; the length input is called ``<name>_length``.
      fields: the columns of an event; their embeddings are concatenated.
      max_length: events kept, the most recent ones.
      compress: a long sequence: learnable queries attend to it and take its place.
    """

    name: str
    fields: tuple[Feature, ...]
    max_length: int
    compress: bool = False

    def __post_init__(self):
        where = f"sequence {self.name!r}"
        object.__setattr__(self, "fields", tuple(self.fields))
        positive(self.max_length, f"{where}: max_length")
        if not isinstance(self.compress, bool):
            raise UsageError(f"{where}: compress is {self.compress!r}; write true or false")
        if not self.fields:
            raise UsageError(f"{where} has no fields; list at least one")
        for field in self.fields:
            if field.side is not None:
                raise UsageError(
                    f"feature {field.name!r} in {where} has side {field.side!r}; drop it, "
                    "a sequence belongs to the user"
                )

    @property
    def length_name(self) -> str:
        """Name of the input that says how many events are real."""
        return f"{self.name}_length"


@dataclass(frozen=True)
class InputSpec:
    """One model input: ``shape`` counts from the batch axis, None is any size."""

    dtype: str
    shape: tuple[int | None, ...]
    candidate: bool = False


@dataclass(frozen=True)
class Schema:
    """Everything the library knows of a data set's columns. See the module's text for the YAML.

    Attributes:
      label: column of the label, 0 or 1.
      group: column that GAUC groups by; need not be a feature.
      tables, features, sequences: see the classes. At least one feature and one sequence.
    """

    label: str
    group: str
    tables: tuple[Table, ...]
    features: tuple[Feature, ...]
    sequences: tuple[Sequence, ...]

    def __post_init__(self):
        for name in ("tables", "features", "sequences"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.features:
            raise UsageError("the schema has no features; list at least one")
        if not self.sequences:
            raise UsageError("the schema has no sequences; LoopCTR reads at least one")
        unique_names([table.name for table in self.tables], "table")
        columns = [f.name for f in self.all_fields()]
        columns += [sequence.length_name for sequence in self.sequences]
        unique_names([*columns, self.label], "column")
        unique_names([sequence.name for sequence in self.sequences], "sequence")
        plain_names([table.name for table in self.tables], "table")
        plain_names([sequence.name for sequence in self.sequences], "sequence")
        input_names(columns)
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

    def _check_group(self):
        remedy = "name the column that GAUC groups by"
        if not isinstance(self.group, str) or not self.group:
            raise UsageError(f"group is {self.group!r}; {remedy}")
        if self.group == self.label:
            raise UsageError(f"group is {self.group!r}, the label; {remedy}")
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
        return tuple(f for f in self.features if f.side in REQUEST_SIDES)

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

    def input_specs(self) -> dict[str, InputSpec]:
        """Every input of the model by name: type, shape and whether it belongs to a candidate."""
        specs = {
            feature.name: InputSpec(
                self._dtype(feature),
                (None, None) if feature.type == "multi_categorical" else (None,),
                candidate=feature.side in CANDIDATE_SIDES,
            )
            for feature in (*self.request_features, *self.candidate_features)
        }
        for sequence in self.sequences:
            for field in sequence.fields:
                multi = field.type == "multi_categorical"
                specs[field.name] = InputSpec(
                    self._dtype(field), (None, None, None) if multi else (None, None)
                )
            specs[sequence.length_name] = InputSpec("int32", (None,))
        return specs

    def _dtype(self, feature: Feature) -> str:
        return "float32" if feature.table is None else self.table(feature.table).dtype

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
        known_keys(values, ("version", *cls.__dataclass_fields__), "schema")
        version = values.get("version", VERSION)
        if version != VERSION:
            raise UsageError(f"schema version is {version!r}; this library reads {VERSION}")
        for name in ("label", "group", "features", "sequences"):
            if name not in values:
                raise UsageError(f"the schema has no {name!r}; add it")
        tables = []
        for name, table in mapping(values.get("tables") or {}, "tables").items():
            table = dict(mapping(table, f"table {name!r}"))
            known_keys(table, Table.__dataclass_fields__, f"table {name!r}")
            if isinstance(table.get("vocabulary"), str):
                table["vocabulary"] = _read_vocabulary(
                    table["vocabulary"], folder, table.get("dtype", "string"), name
                )
            if isinstance(table.get("vectors"), str):
                path = Path(folder or ".") / table["vectors"]
                table["vectors"] = read_vectors(path, f"table {name!r}: vectors")
            tables.append(Table(**{**table, "name": str(name)}))
        sequences = []
        for sequence in listing(values["sequences"], "sequences"):
            sequence = dict(mapping(sequence, "a sequence"))
            known_keys(
                sequence, Sequence.__dataclass_fields__, f"sequence {sequence.get('name')!r}"
            )
            for name in ("name", "max_length"):
                if name not in sequence:
                    raise UsageError(f"sequence {sequence.get('name')!r} has no {name!r}; add it")
            sequence["fields"] = [
                _feature(f)
                for f in listing(sequence.get("fields"), f"sequence {sequence['name']!r}: fields")
            ]
            sequences.append(Sequence(**sequence))
        return cls(
            label=values["label"],
            group=values["group"],
            tables=tables,
            features=[_feature(f) for f in listing(values["features"], "features")],
            sequences=sequences,
        )

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
    """:meth:`Schema.load`, and what stands under ``build`` in the file, unchecked; None without it."""
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"schema {str(path)!r} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(
            f"schema {str(path)!r} is not YAML: {' '.join(str(error).split())}"
        ) from error
    values = dict(mapping(values, "schema"))
    build = values.pop("build", None)
    return Schema.from_dict(values, folder=path.parent), build


def _checked_vocabulary(table: Table) -> tuple[str | int, ...]:
    where = f"table {table.name!r}: vocabulary"
    if not isinstance(table.vocabulary, (list, tuple)):
        raise UsageError(
            f"{where} is {table.vocabulary!r}; give a list of values (a file's name is read by "
            "Schema.load alone)"
        )
    is_known = _is_text if table.dtype == "string" else is_int64
    for value in table.vocabulary:
        if not is_known(value):
            raise UsageError(f"{where} holds {value!r}, not a {table.dtype}; quote or change dtype")
        if table.dtype == "string" and ("\n" in value or "\r" in value):
            raise UsageError(f"{where} holds {value!r}; a value may not contain a line break")
    vocabulary = tuple(map(str if table.dtype == "string" else int, table.vocabulary))
    if len(set(vocabulary)) != len(vocabulary):
        seen: set = set()
        twice = next(value for value in vocabulary if value in seen or seen.add(value))
        raise UsageError(f"{where} holds {twice!r} twice; keep one")
    return vocabulary


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


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
            f"table {table!r}: vocabulary file {str(path)!r} holds a line that is no int64 "
            f"({error}); use dtype: string"
        ) from error


def _feature(values: Any) -> Feature:
    values = mapping(values, "a feature")
    where = f"feature {values.get('name')!r}"
    known_keys(values, Feature.__dataclass_fields__, where)
    for name in ("name", "type"):
        if name not in values:
            raise UsageError(f"{where} has no {name!r}; add it")
    return Feature(**values)


def _plain(value: Any, skip: str = "") -> dict[str, Any]:
    """The fields of a dataclass that are compared and differ from their defaults, as plain values."""
    result = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if field.compare and field.name != skip and item != field.default:
            result[field.name] = list(item) if isinstance(item, tuple) else item
    return result
