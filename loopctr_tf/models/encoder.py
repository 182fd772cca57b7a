"""Raw features to token groups: lookups, embeddings, concatenation. Only here is a feature known."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras as keras

from loopctr_tf.features.columns import Numeric
from loopctr_tf.features.schema import Feature, Schema, Sequence, Table
from loopctr_tf.layers.common import build
from loopctr_tf.layers.frozen import as_stored
from loopctr_tf.layers.recency import RecencyEmbedding


class SequenceTokens(NamedTuple):
    """One behaviour sequence.

    Attributes:
      tokens: [B, T, d_g]; values at padding are undefined.
      lengths: int32 [B].
      mask: bool [B, T], False at padding.
      numbers: the numeric fields as they came, float32 [B, T], e.g. hours before the row.
    """

    tokens: tf.Tensor
    lengths: tf.Tensor
    mask: tf.Tensor
    numbers: dict[str, tf.Tensor] = {}  # noqa: RUF012 (a NamedTuple's default, never changed)


class TokenWidths(NamedTuple):
    """Widths d_g of all token groups, in the order of :class:`TokenGroups`.

    ``numeric`` says of each request group, then of each candidate group, whether it is a number.
    """

    request: tuple[int, ...]
    candidate: tuple[int, ...]
    sequences: tuple[int, ...]
    numeric: tuple[bool, ...]

    @property
    def groups(self) -> tuple[int, ...]:
        """Of the request's groups, the candidate's and the sequences."""
        return (*self.request, *self.candidate, *self.sequences)


class TokenGroups(NamedTuple):
    """All token groups of a batch, not projected yet.

    Attributes:
      request: user and context features in schema order, each [B, d_g].
      candidate: item and cross features in schema order, each [B, d_g] or [R, N, d_g].
      sequences: in schema order.
    """

    request: list[tf.Tensor]
    candidate: list[tf.Tensor]
    sequences: list[SequenceTokens]


class TableLookup(keras.layers.Layer):
    """Raw values, strings or integers, to row numbers inside the graph.

    A known value gets its place in the vocabulary, an unknown one a hash bucket behind it; without
    vocabulary every value is hashed. Integers are hashed as their decimal text.
    """

    def __init__(self, table: Table, **kwargs):
        super().__init__(trainable=False, **kwargs)
        self.table = table
        self.index = None
        if table.vocabulary:
            keys = tf.constant(table.vocabulary, tf.as_dtype(table.dtype))
            rows = tf.range(len(table.vocabulary), dtype=tf.int64)
            # -1 and not a default bucket, so that integers need no text unless they are unknown.
            self.index = tf.lookup.StaticHashTable(
                tf.lookup.KeyValueTensorInitializer(keys, rows), default_value=-1
            )

    def call(self, values):
        """Row numbers int64 of ``values``, of the same shape."""
        table = self.table
        buckets = table.hash_buckets or table.oov_buckets
        text = values if table.dtype == "string" else tf.strings.as_string(values)
        hashed = tf.strings.to_hash_bucket_fast(text, buckets)
        if table.vocabulary is None:
            return hashed
        if self.index is None:
            return hashed  # an empty vocabulary: every value is unknown
        rows = self.index.lookup(values)
        return tf.where(rows >= 0, rows, hashed + len(table.vocabulary))


class VectorsThenZeros(keras.initializers.Initializer):
    """Rows of an embedding table: ``vectors`` [known values, dim], and zeros for unknown values.

    Makes whole tables and parts of partitioned ones.
    """

    def __init__(self, vectors: np.ndarray):
        self._vectors = vectors

    def __call__(self, shape, dtype=None, partition_shape=None, partition_offset=None, **kwargs):
        """The table of ``shape``, or its rows from ``partition_offset`` on."""
        start = 0 if partition_offset is None else partition_offset[0]
        rows = (partition_shape or shape)[0]
        vectors = tf.constant(self._vectors[start : start + rows], dtype)
        return tf.pad(vectors, [[0, rows - len(vectors)], [0, 0]])


@keras.utils.register_keras_serializable("loopctr_tf")
class Embedding(keras.layers.Embedding):
    """Keras's, which reads no more than the rows asked for where a strategy mirrors the table too."""

    def call(self, inputs):
        """Rows [..., dim] of ``inputs`` [...] in the compute type; gathered first, and cast then."""
        table = as_stored(self.embeddings)
        if table is not self.embeddings:
            return tf.cast(tf.gather(table, inputs), self.compute_dtype)
        if not isinstance(table, tf.distribute.DistributedValues):
            return super().call(inputs)
        # What a mirrored variable says of its replica's; its own `sparse_read` raises, whereupon
        # `tf.gather` reads the whole table.
        rows = table.__getattr__("sparse_read")(inputs)
        return tf.cast(rows, self.compute_dtype)


class FeatureEncoder(keras.layers.Layer):
    """Model inputs (see ``Schema.inputs``) to :class:`TokenGroups`.

    A categorical feature is its row of the embedding table; of a multi-valued one the rows are
    averaged, padding values ("" or -1) left out; a number is (transform(x) - mean) / std. The fields of
    an event are concatenated. Of a sequence the most recent ``max_length`` events stay.

    A table with vectors starts from them, its rows for unknown values from zero; others start from
    N(0, 0.001). A table that is not trainable keeps the rows that it starts from or that are loaded.
    Numbers are standardized in float32, whatever the compute type.

    Args:
      schema: of the features.
      embedding_dim: width of the tables that name none.
      recency: whether a learned vector for its age is added to each event, see
        :class:`~loopctr_tf.layers.recency.RecencyEmbedding`.
    """

    def __init__(self, schema: Schema, embedding_dim: int, recency: bool = False, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.schema = schema
        self._dims = {table.name: table.dim or embedding_dim for table in schema.tables}
        self.lookups = {
            table.name: TableLookup(table, name=f"{table.name}_lookup") for table in schema.tables
        }
        self.embeddings = {
            table.name: Embedding(
                table.rows,
                self._dims[table.name],
                embeddings_initializer=_start(table),
                trainable=table.trainable,
                name=f"{table.name}_embedding",
                dtype=self.dtype_policy,
            )
            for table in schema.tables
        }

        self.recency = {
            sequence.name: RecencyEmbedding(
                sequence.max_length, name=f"{sequence.name}_recency", dtype=self.dtype_policy
            )
            for sequence in schema.sequences
            if recency
        }

    def build(self, input_shape=None):
        """Creates the embedding tables, and the vectors of ages."""
        for embedding in self.embeddings.values():
            build(embedding, None)
        for sequence in self.schema.sequences:
            if sequence.name in self.recency:
                build(self.recency[sequence.name], [None, None, self.width(sequence)])
        self.built = True

    @property
    def tables(self) -> dict[str, tf.lookup.StaticHashTable]:
        """The lookup tables, which whatever is exported must hold."""
        return {name: lookup.index for name, lookup in self.lookups.items() if lookup.index}

    def width(self, group: Feature | Sequence) -> int:
        """d_g of a feature's or a sequence's tokens."""
        if isinstance(group, Sequence):
            return sum(map(self.width, group.fields))
        return 1 if group.table is None else self._dims[group.table]

    @property
    def token_widths(self) -> TokenWidths:
        """The widths of all groups that :meth:`call` returns."""
        schema = self.schema
        sides = schema.request_features, schema.candidate_features
        return TokenWidths(
            *(tuple(map(self.width, groups)) for groups in (*sides, schema.sequences)),
            numeric=tuple(feature.table is None for side in sides for feature in side),
        )

    def call(self, features) -> TokenGroups:
        """Encodes a mapping of raw features."""
        return self.embed(self.lookup(features))

    def lookup(self, features) -> dict[str, tf.Tensor]:
        """The half that needs strings: row numbers for categories, -1 where nothing is.

        Sequences come out cut to their most recent events; everything else keeps its shape.
        """
        found = {
            feature.name: self._rows(feature, features[feature.name])
            for feature in self.schema.features
            if feature.name in features
        }
        for sequence in self.schema.sequences:
            if sequence.length_name not in features:
                continue
            lengths = tf.cast(features[sequence.length_name], tf.int32)
            for field in sequence.fields:
                recent = most_recent(features[field.name], lengths, sequence.max_length)
                found[field.name] = self._rows(field, recent)
            found[sequence.length_name] = tf.minimum(lengths, sequence.max_length)
        return found

    def embed(self, rows) -> TokenGroups:
        """The half that is arithmetic alone: what :meth:`lookup` gave to token groups.

        Features that are absent are left out, so that a request's and a candidate's side can be
        encoded apart.
        """
        return TokenGroups(
            [self._token(f, rows[f.name]) for f in self.schema.request_features if f.name in rows],
            [
                self._token(f, rows[f.name])
                for f in self.schema.candidate_features
                if f.name in rows
            ],
            [self._sequence(s, rows) for s in self.schema.sequences if s.length_name in rows],
        )

    def _rows(self, feature: Feature, values: tf.Tensor) -> tf.Tensor:
        if feature.table is None:
            return tf.cast(values, tf.float32)
        rows = self.lookups[feature.table](values)
        if feature.type == "multi_categorical":
            padding = self.schema.inputs[feature.name].padding
            rows = tf.where(tf.equal(values, padding), tf.constant(-1, tf.int64), rows)
        return rows

    def _token(self, feature: Feature, rows: tf.Tensor) -> tf.Tensor:
        if feature.type == "numeric":
            return tf.cast(standardize(feature, rows), self.compute_dtype)[..., None]
        embedding = self.embeddings[feature.table]
        if feature.type == "categorical":
            return embedding(rows)
        real = tf.cast(rows >= 0, self.compute_dtype)[..., None]
        total = tf.reduce_sum(embedding(tf.maximum(rows, 0)) * real, axis=-2)
        return total / tf.maximum(tf.reduce_sum(real, axis=-2), 1)

    def _sequence(self, sequence: Sequence, rows) -> SequenceTokens:
        lengths = rows[sequence.length_name]
        fields = [rows[field.name] for field in sequence.fields]
        mask = tf.sequence_mask(lengths, tf.shape(fields[0])[1])
        tokens, numbers = [], {}
        for field, values in zip(sequence.fields, fields, strict=True):
            if field.type == "numeric":
                # A NaN times a weight of zero is a NaN: padding must not hold one.
                values = numbers[field.name] = tf.where(mask, values, field.default)
            tokens.append(self._token(field, values))
        joined = tf.concat(tokens, axis=-1)
        if sequence.name in self.recency:
            joined = self.recency[sequence.name](joined, lengths)
        return SequenceTokens(joined, lengths, mask, numbers)


def _start(table: Table) -> keras.initializers.Initializer:
    if table.vectors is None:
        return keras.initializers.RandomNormal(stddev=0.001)
    return VectorsThenZeros(table.vectors)


def standardize(feature: Numeric, values: tf.Tensor) -> tf.Tensor:
    """(transform(x) - mean) / std of a numeric feature, float32."""
    return (feature.transformed(values, tf) - feature.mean) / feature.std


def most_recent(values: tf.Tensor, lengths: tf.Tensor, limit: int) -> tf.Tensor:
    """The last ``limit`` real events of right-padded ``values`` [B, T, ...], again right-padded."""

    def cut():
        start = tf.maximum(lengths - limit, 0)
        return tf.gather(values, start[:, None] + tf.range(limit), axis=1, batch_dims=1)

    if values.shape[1] is not None:
        return cut() if values.shape[1] > limit else values
    return tf.cond(tf.shape(values)[1] > limit, cut, lambda: values)
