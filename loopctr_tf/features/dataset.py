"""Rows into the model: TFRecord shards or a DataFrame to tf.data, with one parsing of tf.Example.

A batch is ``(features, label)``, or ``(features, label, weight)`` of a schema with a weight, as
``model.fit`` takes it: ``features`` maps every name of ``Schema.inputs`` to a dense tensor (sequences
right-padded, oldest event first, with their length), ``label`` and ``weight`` are float32 [B].
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import tensorflow as tf

from loopctr_tf.errors import UsageError
from loopctr_tf.features.frame import frame_columns
from loopctr_tf.features.inputs import Input
from loopctr_tf.features.prepared import SPLITS, split_shards
from loopctr_tf.features.schema import Schema

_LABEL_MESSAGE = "labels must be 0 or 1; found, in column "
_WEIGHT_MESSAGE = "weights must be finite numbers from 0 on; found, in column "


def parsing_spec(
    schema: Schema, label: bool = False, group: bool = False, weight: bool = False
) -> dict:
    """What ``tf.io.parse_example`` needs to read a row of ``schema``.

    Global features are required; lists (multi-valued features and sequences) may be empty. A
    multi-valued field of a sequence is two features, its values and ``Input.counts_name``.
    """
    spec = {}
    for name, each in schema.inputs.items():
        dtype = tf.as_dtype(each.dtype)
        if each.is_list:
            spec[name] = tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int32)
            if each.counts_name:
                spec[each.counts_name] = tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int32)
        elif not each.is_length:
            spec[name] = tf.io.FixedLenFeature([], dtype)
    if group:
        spec.setdefault(schema.group, tf.io.FixedLenFeature([], tf.as_dtype(schema.group_dtype)))
    if label:
        spec[schema.label] = tf.io.FixedLenFeature([], tf.float32)
    if weight and schema.weight is not None:
        spec[schema.weight] = tf.io.FixedLenFeature([], tf.float32)
    return spec


def parse_examples(
    serialized: tf.Tensor, schema: Schema, repair: bool = False
) -> dict[str, tf.Tensor]:
    """Model inputs out of serialized tf.Example rows.

    Args:
      serialized: string [B].
      schema: what the rows hold.
      repair: where the fields of a sequence differ in their number of events, keep of each the most
        recent ones, as many as the shortest has.

    Returns:
      The features of ``Schema.inputs``, dense.

    Raises:
      tf.errors.InvalidArgumentError: for bytes that are not a tf.Example, an absent global feature, or,
        without ``repair``, sequence fields of different lengths.
    """
    return dense_features(tf.io.parse_example(serialized, parsing_spec(schema)), schema, repair)


def dense_features(
    columns: Mapping[str, tf.Tensor | tf.RaggedTensor], schema: Schema, repair: bool = False
) -> dict[str, tf.Tensor]:
    """Global columns as they are, lists padded to the batch's longest, lengths added."""
    features = {}
    for feature in schema.features:
        value, each = columns[feature.name], schema.inputs[feature.name]
        features[feature.name] = value.to_tensor(each.padding) if each.is_list else value
    for sequence in schema.sequences:
        inputs = [schema.inputs[field.name] for field in sequence.fields]
        # Of a multi-valued field, what is cut and counted are the spans of its events' values.
        spans = [_event_spans(columns, each, repair) if each.multi else None for each in inputs]
        fields = [
            columns[each.name] if span is None else span
            for each, span in zip(inputs, spans, strict=True)
        ]
        if repair:
            fields = _equally_long(fields)
        length = fields[0].row_lengths()
        for each, span, ragged in zip(inputs, spans, fields, strict=True):
            with tf.control_dependencies(
                [
                    tf.debugging.assert_equal(
                        ragged.row_lengths(),
                        length,
                        message=f"sequence {sequence.name!r}: field {each.name!r} has another "
                        f"number of events than {inputs[0].name!r}",
                    )
                ]
            ):
                # The most recent events stay.
                ragged = ragged[:, -sequence.max_length :]
            if span is not None:
                ragged = _values_of(columns[each.name], ragged)
            features[each.name] = ragged.to_tensor(each.padding)
        features[sequence.length_name] = tf.cast(tf.minimum(length, sequence.max_length), tf.int32)
    return features


def event_values(
    columns: Mapping[str, tf.Tensor | tf.RaggedTensor], each: Input
) -> tf.RaggedTensor:
    """A multi-valued field of a sequence as it was parsed: [B, (events), (values)]."""
    return _values_of(columns[each.name], _event_spans(columns, each))


def _event_spans(
    columns: Mapping[str, tf.Tensor | tf.RaggedTensor], each: Input, repair: bool = False
) -> tf.RaggedTensor:
    """Where an event's values begin and end among all values: int64 [B, (events), 2].

    Rows without counts are of the layout that was written once: ``max_values`` values an event, padded.
    ``repair`` leaves out values that no event counts, and what an event counts beyond the row's values.
    """
    values, counts = columns[each.name], columns[each.counts_name]
    size = tf.size(values.flat_values, tf.int64)
    padded = tf.where(counts.row_lengths() == 0, values.row_lengths() // each.width, 0)
    padding = tf.RaggedTensor.from_row_lengths(
        tf.fill([tf.reduce_sum(padded)], tf.constant(each.width, tf.int64)),
        tf.cast(padded, counts.row_splits.dtype),
        validate=False,
    )
    counts = tf.cond(
        tf.equal(tf.size(padding.values), 0),
        lambda: counts,
        lambda: tf.concat([counts, padding], axis=1),
    )
    # Impossible ones become possible, or, to be refused, too many; so no sum overflows.
    flat = tf.clip_by_value(counts.values, 0, size)
    if not repair:
        flat = tf.where(flat == counts.values, flat, size + 1)
    ends = tf.cumsum(flat)
    starts = ends - flat
    bounds = tf.gather(tf.concat([[0], ends], 0), counts.row_splits)
    if repair:
        # Of each row by itself, within its own values.
        rows = counts.value_rowids()
        limits = tf.gather(tf.cast(values.row_limits(), tf.int64), rows)
        shift = tf.gather(tf.cast(values.row_starts(), tf.int64) - bounds[:-1], rows)
        starts, ends = tf.minimum(starts + shift, limits), tf.minimum(ends + shift, limits)
    else:
        check = tf.debugging.assert_equal(
            bounds,
            tf.cast(values.row_splits, tf.int64),
            message=f"field {each.name!r} has another number of values than {each.counts_name!r} "
            f"says, or, without it, than {each.width} an event",
        )
        with tf.control_dependencies([check]):
            starts = tf.identity(starts)
    return counts.with_values(tf.stack([starts, ends], axis=1))


def _values_of(values: tf.RaggedTensor, spans: tf.RaggedTensor) -> tf.RaggedTensor:
    """[B, (events), (values)] by the result of :func:`_event_spans`."""
    starts, ends = tf.unstack(spans.values, 2, axis=1)
    flat = values.flat_values
    taken = tf.cond(
        tf.equal(tf.reduce_sum(ends - starts), tf.size(flat, tf.int64)),
        lambda: flat,  # spans are in order: nothing was cut
        lambda: tf.gather(flat, tf.ragged.range(starts, ends).values),
    )
    lengths = tf.cast(ends - starts, spans.row_splits.dtype)
    return spans.with_values(tf.RaggedTensor.from_row_lengths(taken, lengths, validate=False))


def _equally_long(fields: list[tf.RaggedTensor]) -> list[tf.RaggedTensor]:
    """Of each field the most recent events, as many in each row as its shortest field has."""
    shortest = tf.reduce_min(tf.stack([field.row_lengths() for field in fields]), axis=0)
    cut = []
    for field in fields:
        ends = field.row_limits()
        cut.append(tf.gather(field.values, tf.ragged.range(ends - shortest, ends)))
    return cut


def read_dataset(
    source: str | Path | pd.DataFrame,
    schema: Schema | None = None,
    *,
    batch_size: int = 512,
    shuffle: bool = False,
    seed: int = 0,
    shuffle_buffer: int = 20_000,
    group: bool = False,
    shard: tuple[int, int] | None = None,
    drop_remainder: bool = False,
    deterministic: bool = True,
) -> tf.data.Dataset:
    """Batches of ``(features, label)``, or ``(features, label, weight)``, for ``model.fit``.

    Args:
      source: a split of a prepared folder (``prepared/train``), or a DataFrame with the columns of
        ``schema`` (see :func:`loopctr_tf.features.frame.frame_columns`).
      schema: needed with a DataFrame; a prepared folder holds its own.
      batch_size: rows a batch (over all replicas, under a strategy).
      shuffle: another order every epoch; the same orders for the same ``seed``.
      seed: of the shuffling.
      shuffle_buffer: rows held for shuffling shards; a DataFrame is shuffled whole.
      group: also give the group column among the features, where it is none.
      shard: (index, count): every count-th row (shards: every count-th file where there are enough).
      drop_remainder: leave out a last batch that is not full.
      deterministic: the same order on every run; False may be faster.

    Returns:
      A ``tf.data.Dataset``; features as in the module's text, label and weight float32 [B], the latter
      of a schema with ``weight: COLUMN`` alone.

    Raises:
      UsageError: for a source that is absent, empty, cut short or not of the schema.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size!r}; give 1 or more")
    if shard is not None and not 0 <= shard[0] < shard[1]:
        raise UsageError(f"shard is {shard!r}; give (index, count) with 0 <= index < count")
    if isinstance(source, pd.DataFrame):
        if schema is None:
            raise UsageError("a DataFrame needs a schema; give schema=")
        dataset = _frame_batches(
            source, schema, batch_size, shuffle, seed, shard, drop_remainder, group
        )
    else:
        dataset, schema = _shard_batches(
            Path(source),
            schema,
            batch_size,
            shuffle,
            seed,
            shuffle_buffer,
            shard,
            drop_remainder,
            deterministic,
            group,
        )
    options = tf.data.Options()
    options.deterministic = deterministic
    # Rows are alike, so that each worker of a strategy takes every count-th one.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.OFF
        if shard is not None
        else tf.data.experimental.AutoShardPolicy.DATA
    )
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)


@contextmanager
def data_errors() -> Iterator[None]:
    """Turns what tf.data says of bad rows while they are read into a one-line UsageError."""
    try:
        yield
    except tf.errors.DataLossError as error:
        raise UsageError(f"a shard is damaged: {_reason(error)}; prepare the data again") from error
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError) as error:
        message = _reason(error)
        if message.startswith(_LABEL_MESSAGE):
            raise UsageError(f"{message}; prepare the data again with labels 0 and 1") from error
        if message.startswith(_WEIGHT_MESSAGE):
            raise UsageError(f"{message}; prepare the data again with such weights") from error
        # Anything else that goes wrong inside the model is not the data's fault.
        if "ParseExample" in str(error) or "another number of" in message:
            raise UsageError(
                f"the rows are not of the schema: {message}; prepare the data again"
            ) from error
        raise


def _reason(error: Exception) -> str:
    """What went wrong, without where in TensorFlow it did."""
    # Inside an assertion's text quotes are escaped.
    lines = [line.strip() for line in str(error).replace("\\'", "'").splitlines() if line.strip()]
    marks = ("assertion failed: ", "Key: ", "Feature: ", "corrupted record", "truncated record")
    line = next((line for line in lines if any(mark in line for mark in marks)), lines[0])
    asserted = re.search(r"assertion failed: \[(.*?)\](?: \[([^\]]*?)(?:\.\.\.)?\])?", line)
    if asserted:
        text, value = asserted.groups()
        return f"{text}: {value}" if text.startswith((_LABEL_MESSAGE, _WEIGHT_MESSAGE)) else text
    return re.sub(r"^.*Iterator::\S*: |^\{\{.*?\}\} ", "", line)[:300]


def _shard_batches(
    source, schema, batch_size, shuffle, seed, buffer, shard, drop_remainder, deterministic, group
):
    folder, split = source.parent, source.name
    if split not in SPLITS:
        raise UsageError(
            f"source {str(source)!r} is not a split of a prepared folder; "
            f"name one of its folders {', '.join(SPLITS)}"
        )
    paths = split_shards(folder, split)
    schema = schema or Schema.load(folder)
    files = tf.data.Dataset.from_tensor_slices(paths)
    by_file = shard is not None and len(paths) >= shard[1]
    if by_file:
        files = files.shard(shard[1], shard[0])
    if shuffle:
        files = files.shuffle(len(paths), seed=seed)
    rows = files.interleave(
        tf.data.TFRecordDataset,
        cycle_length=min(4, len(paths)) if shuffle else 1,
        num_parallel_calls=tf.data.AUTOTUNE if shuffle else None,
        deterministic=deterministic if shuffle else None,
    )
    if shard is not None and not by_file:
        rows = rows.shard(shard[1], shard[0])
    if shuffle:
        rows = rows.shuffle(buffer, seed=seed)
    spec = parsing_spec(schema, label=True, group=group, weight=True)

    def parse(serialized):
        columns = tf.io.parse_example(serialized, spec)
        return _batch(columns, schema, group)

    batches = rows.batch(batch_size, drop_remainder=drop_remainder)
    return batches.map(parse, num_parallel_calls=tf.data.AUTOTUNE), schema


def _frame_batches(frame, schema, batch_size, shuffle, seed, shard, drop_remainder, group):
    columns = {
        name: tf.constant(column.values)
        if column.row_splits is None
        else tf.RaggedTensor.from_row_splits(column.values, column.row_splits)
        for name, column in frame_columns(frame, schema).items()
    }
    rows = tf.data.Dataset.range(len(frame))
    if shard is not None:
        rows = rows.shard(shard[1], shard[0])
    if shuffle:
        rows = rows.shuffle(len(frame), seed=seed)

    def gather(indices):
        picked = {name: tf.gather(column, indices) for name, column in columns.items()}
        return _batch(picked, schema, group)

    batches = rows.batch(batch_size, drop_remainder=drop_remainder)
    return batches.map(gather, num_parallel_calls=tf.data.AUTOTUNE)


def _batch(columns, schema: Schema, group: bool):
    features = dense_features(columns, schema)
    if group:
        features.setdefault(schema.group, columns[schema.group])
    label = columns[schema.label]
    label = _refused((label != 0) & (label != 1), label, _LABEL_MESSAGE + repr(schema.label))
    if schema.weight is None:
        return features, label
    weight = columns[schema.weight]
    bad = ~((weight >= 0) & tf.math.is_finite(weight))
    return features, label, _refused(bad, weight, _WEIGHT_MESSAGE + repr(schema.weight))


def _refused(wrong, values, message: str):
    """``values``, after an assertion that none of them is ``wrong``."""
    found = tf.boolean_mask(values, wrong)
    check = tf.debugging.Assert(tf.equal(tf.size(found), 0), [message, found], summarize=1)
    with tf.control_dependencies([check]):
        return tf.identity(values)
