"""The one list of what a model takes: everything that is known of an input, made from the schema.

The parse spec of tf.Example, TensorSpecs, padding, sample requests, the names of axes in an export and
the columns of a DataFrame are all derived from it.
"""

from dataclasses import dataclass
from typing import Any

from loopctr_tf.features.columns import CANDIDATE_SIDES, PADDING, Feature, Sequence, Table

BATCH, CANDIDATES, VALUES = "batch", "candidates", "values"
"""Names of axes; the axis of events is named after the input that counts them."""


@dataclass(frozen=True)
class Input:
    """One input of the model.

    Attributes:
      name: of the column, of the tensor and of the tf.Example's feature.
      dtype: "string", "int64", "float32", or "int32" of a length.
      shape: from the batch axis on; None is any size.
      candidate: whether each candidate has a value of its own (item and cross features).
      sequence: name of the sequence that it is a field or the length of.
      length_name: of a field, the input that counts its events.
      width: values an event, or most values of a multi-valued feature; 1 for all others.
      max_length: events that stay, of a sequence's inputs.
      truncate: of a multi-valued feature, which values of a longer list stay in training rows.
      padding: value that fills up lists.
      default: value that stands for a missing one.
      sample: value that a request may send.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    candidate: bool = False
    sequence: str | None = None
    length_name: str | None = None
    width: int = 1
    max_length: int | None = None
    truncate: str = "error"
    padding: Any = 0
    default: Any = 0
    sample: Any = 0

    @property
    def is_length(self) -> bool:
        """Whether it counts the events of a sequence."""
        return self.sequence is not None and self.length_name is None

    @property
    def is_list(self) -> bool:
        """Whether a row of it is a list."""
        return len(self.shape) > 1

    @property
    def multi(self) -> bool:
        """Whether an event, or a global feature, has several values."""
        return len(self.shape) == (3 if self.length_name else 2)

    @property
    def counts_name(self) -> str | None:
        """Of a multi-valued field, the column of a row that holds the number of values of each event.

        The field's own column holds the values of all events one after the other.
        """
        return counts_name(self.name) if self.length_name and self.multi else None

    @property
    def events_name(self) -> str:
        """Of a field, the column of a row that has one value an event: its own, or the counts."""
        return self.counts_name or self.name

    @property
    def full_sizes(self) -> tuple[int, ...]:
        """Sizes behind the batch axis at full length and width."""
        events = (self.max_length,) if self.length_name else ()
        return events + ((self.width,) if self.multi else ())

    def axes(self, ranked: bool = False) -> tuple[str, ...]:
        """Names of all axes; in a ranking signature a candidate's input has one more."""
        candidates = (CANDIDATES,) if ranked and self.candidate else ()
        events = (self.length_name,) if self.length_name else ()
        return (BATCH, *candidates, *events, *((VALUES,) if self.multi else ()))

    def tensor_spec(self, ranked: bool = False):
        """TensorSpec by its name; in a ranking signature a candidate's input is [R, N, ...]."""
        import tensorflow as tf

        shape = (None, *self.shape) if ranked and self.candidate else self.shape
        return tf.TensorSpec(shape, tf.as_dtype(self.dtype), self.name)


def counts_name(field: str) -> str:
    """The column of a row with the values an event of a multi-valued field of a sequence."""
    return f"{field}_counts"


def feature_input(feature: Feature, table: Table | None, sequence: Sequence | None = None) -> Input:
    """The input of a global feature, or of a field of ``sequence``."""
    axes = 1 + (sequence is not None) + (feature.type == "multi_categorical")
    if table is None:
        values = {"dtype": "float32", "padding": PADDING["float32"]}
        values |= {"default": feature.default, "sample": feature.default}
    else:
        values = {"dtype": table.dtype, "padding": table.padding}
        values |= {"default": table.padding, "sample": table.sample}
    if sequence is not None:
        values |= {"sequence": sequence.name, "length_name": sequence.length_name}
        values["max_length"] = sequence.max_length
    return Input(
        feature.name,
        shape=(None,) * axes,
        candidate=feature.side in CANDIDATE_SIDES,
        width=feature.max_values or 1,
        truncate=getattr(feature, "truncate", "error"),
        **values,
    )


def length_input(sequence: Sequence) -> Input:
    """The input that counts the events of ``sequence``."""
    return Input(
        sequence.length_name,
        "int32",
        (None,),
        sequence=sequence.name,
        max_length=sequence.max_length,
        sample=sequence.max_length,
    )
