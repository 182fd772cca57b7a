"""What a schema is made of: tables, the three kinds of features, and sequences."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field, field_validator, model_validator

from loopctr_tf.errors import UsageError
from loopctr_tf.features.vectors import checked_vectors
from loopctr_tf.settings import Number, Settings, is_int64

SIDES = ("user", "context", "item", "cross")
CANDIDATE_SIDES = ("item", "cross")
PADDING = {"string": "", "int64": -1, "float32": 0.0}
"""By dtype the value that stands for "nothing"; in a multi-valued feature it is left out."""

Side = Literal["user", "context", "item", "cross"]
Positive = Annotated[int, Field(ge=1)]
Plain = Annotated[
    Number, BeforeValidator(lambda value: value.item() if isinstance(value, np.generic) else value)
]
"""A number; NumPy's become Python's, which YAML can hold."""
RawColumn = Annotated[str, Field(min_length=1)] | None
"""Name of a column of the raw tables."""


class Table(Settings):
    """An embedding table and the rule that leads from a raw value to its row."""

    what: ClassVar[str] = "key"

    name: str
    """Unique name."""
    dtype: Literal["string", "int64"] = "string"
    """Type of raw values."""
    vocabulary: Any = None
    """Known values in row order, or a text file beside the schema with one value a line; null hashes
    every value."""
    oov_buckets: Positive = 1
    """Rows behind the vocabulary that unknown values are hashed to."""
    hash_buckets: Positive | None = None
    """Rows of a table without vocabulary."""
    dim: Positive | None = None
    """Width; null takes that of the vectors, or else the model's embedding_dim."""
    trainable: bool = True
    """False keeps the rows as they start. Without vectors such a table can hold weights that are loaded,
    and nothing can be trained with it."""
    vectors: Any = Field(default=None, exclude=True, repr=False)
    """float32 [len(vocabulary), dim], what the rows of known values start from, in the order of the
    vocabulary, or a .npy file beside the schema; rows of unknown values start from zero. Not compared,
    and not in to_dict: it has a file of its own."""

    @classmethod
    def subject(cls, values: Mapping[str, Any]) -> str:
        """``table 'movie': ``."""
        return f"table {values.get('name')!r}: "

    @field_validator(
        "vocabulary", mode="plain", json_schema_input_type=list[str | int] | str | None
    )
    @classmethod
    def _as_tuple(cls, values: Any) -> Any:
        # Checked as a whole below: a million values one by one would take seconds.
        return tuple(values) if isinstance(values, list) else values

    @model_validator(mode="after")
    def _check(self):
        where = self.subject({"name": self.name})
        if (self.vocabulary is None) == (self.hash_buckets is None):
            raise UsageError(
                f"{where.removesuffix(': ')} needs either a vocabulary or hash_buckets, and not both"
            )
        if self.vocabulary is not None:
            _check_vocabulary(self.vocabulary, self.dtype, f"{where}vocabulary")
        if self.vectors is not None:
            if self.vocabulary is None:
                raise UsageError(
                    f"{where}vectors need a vocabulary, which names their rows; give one"
                )
            vectors = checked_vectors(
                self.vectors, len(self.vocabulary), self.dim, f"{where}vectors"
            )
            self.__dict__.update(vectors=vectors, dim=vectors.shape[1])
        return self

    @property
    def rows(self) -> int:
        """Rows of the embedding table, including those of unknown values."""
        if self.vocabulary is None:
            return self.hash_buckets
        return len(self.vocabulary) + self.oov_buckets

    @property
    def padding(self) -> str | int:
        """The value that stands for "nothing"."""
        return PADDING[self.dtype]

    @property
    def sample(self) -> str | int:
        """A value that a request may send: the first known one."""
        if self.vocabulary:
            return self.vocabulary[0]
        return "0" if self.dtype == "string" else 0

    def _compared(self) -> tuple:
        return tuple(getattr(self, name) for name in type(self).model_fields if name != "vectors")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Table) and self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash(self._compared())


class Feature(Settings):
    """One column: a global feature, or a field of a sequence (then without ``side``).

    ``Feature(type="numeric", ...)`` makes the class of that type.
    """

    what: ClassVar[str] = "key"

    name: str
    """Column name, unique in the schema."""

    def __new__(cls, *args: Any, **values: Any):
        """An instance of the class that ``type`` names."""
        named = dict(zip(("name", "type"), args, strict=False)) | values
        return super().__new__(_class_of(named) if cls is Feature else cls)

    @classmethod
    def subject(cls, values: Mapping[str, Any]) -> str:
        """``feature 'age': ``."""
        return f"feature {values.get('name')!r}: "


class Categorical(Feature):
    """One value, embedded."""

    max_values: ClassVar[None] = None
    type: Literal["categorical"] = "categorical"
    side: Side | None = None
    """user or context (one value a request), item or cross (one a candidate); null in a sequence."""
    table: str
    """Embedding table."""
    column: RawColumn = None
    """The column of the raw events or items that it is made of; null means the one of its name."""


class MultiCategorical(Feature):
    """Several values, whose embeddings are averaged."""

    type: Literal["multi_categorical"] = "multi_categorical"
    side: Side | None = None
    """user or context (one list a request), item or cross (one a candidate); null in a sequence."""
    table: str
    """Embedding table."""
    max_values: Positive
    """Most values in training rows, while a request may send any number."""
    truncate: Literal["first", "last", "error"] = "error"
    """What becomes of a longer list in training rows: its first or last max_values values stay, or it is
    an error. The caller of a server cuts lists alike."""
    column: RawColumn = None
    """The column of the raw events or items that it is made of; null means the one of its name."""


class Numeric(Feature):
    """One number, standardized: (transform(x) - mean) / std."""

    table: ClassVar[None] = None
    max_values: ClassVar[None] = None
    type: Literal["numeric"] = "numeric"
    side: Side | None = None
    """user or context (one number a request), item or cross (one a candidate); null in a sequence."""
    transform: Literal["none", "log1p"] = "none"
    """log1p is sign(x) log(1 + |x|), before standardizing."""
    mean: Plain = 0.0
    """Of the transformed training values."""
    std: Annotated[Plain, Field(gt=0)] = 1.0
    """Of the transformed training values."""
    default: Plain = 0.0
    """Number that stands for a missing one."""
    column: RawColumn = None
    """The column of the raw events or items that it is made of; null means the one of its name."""

    def transformed(self, values: Any, library: Any = np) -> Any:
        """``values`` before standardizing; ``library`` is NumPy, or TensorFlow's NumPy-like functions.

        The one definition for fitting and for the graph.
        """
        if self.transform == "none":
            return values
        log1p = library.log1p if library is np else library.math.log1p
        return library.sign(values) * log1p(library.abs(values))

    def inverse(self, values: Any) -> Any:
        """The numbers that :meth:`transformed` leads to ``values``."""
        if self.transform == "none":
            return values
        return np.copysign(np.expm1(np.abs(values)), values)


KINDS = {
    "categorical": Categorical,
    "multi_categorical": MultiCategorical,
    "numeric": Numeric,
}
AnyFeature = Annotated[Categorical | MultiCategorical | Numeric, Field(discriminator="type")]


class Sequence(Settings):
    """A behaviour sequence of the user: events oldest first, one token an event."""

    what: ClassVar[str] = "key"

    name: str
    """Unique name; the length input is called <name>_length."""
    fields: Annotated[tuple[AnyFeature, ...], Field(strict=False)]
    """The columns of an event; their embeddings are concatenated."""
    max_length: Positive
    """Events that stay, the most recent ones."""
    compress: bool = False
    """A long sequence: learnable queries attend to it and take its place."""

    @classmethod
    def subject(cls, values: Mapping[str, Any]) -> str:
        """``sequence 'history': ``."""
        return f"sequence {values.get('name')!r}: "

    @model_validator(mode="after")
    def _check(self):
        where = f"sequence {self.name!r}"
        if not self.fields:
            raise UsageError(f"{where} has no fields; list at least one")
        for field in self.fields:
            if field.side is not None:
                raise UsageError(
                    f"feature {field.name!r} in {where} has side {field.side!r}; drop it, a sequence "
                    "belongs to the user"
                )
        return self

    @property
    def length_name(self) -> str:
        """Name of the input that says how many events are real."""
        return f"{self.name}_length"


def _class_of(values: Mapping[str, Any]) -> type[Feature]:
    where, kind = f"feature {values.get('name')!r}", values.get("type")
    if kind is None:
        raise UsageError(f"{where} has no 'type'; add it")
    if kind not in KINDS:
        raise UsageError(f"{where}: type is {kind!r}; choose {', '.join(KINDS)}")
    return KINDS[kind]


def _check_vocabulary(values: Any, dtype: str, where: str) -> None:
    if not isinstance(values, tuple):
        raise UsageError(
            f"{where} is {values!r}; give a list of values (a file's name is read by Schema.load alone)"
        )
    for value in values:
        if not (isinstance(value, str) if dtype == "string" else is_int64(value)):
            raise UsageError(f"{where} holds {value!r}, not a {dtype}; quote or change dtype")
        if dtype == "string" and ("\n" in value or "\r" in value):
            raise UsageError(f"{where} holds {value!r}; a value may not contain a line break")
    if len(set(values)) != len(values):
        seen: set = set()
        twice = next(value for value in values if value in seen or seen.add(value))
        raise UsageError(f"{where} holds {twice!r} twice; keep one")
