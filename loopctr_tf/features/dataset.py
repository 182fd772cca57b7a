"""Rows into the model: TFRecord shards or a DataFrame to tf.data, with one parsing of tf.Example.

A batch is ``(features, label)``: ``features`` maps every name of ``Schema.inputs`` to a dense
tensor (sequences right-padded, oldest event first, with their length), ``label`` is float32 [B].
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import tensorflow as tf

from loopctr_tf.errors import UsageError
from loopctr_tf.features.frame import frame_columns
from loopctr_tf.features.prepared import SPLITS, split_shards
from loopctr_tf.features.schema import Schema

_LABEL_MESSAGE = "labels must be 0 or 1; found, in column "


def parsing_spec(schema: Schema, label: bool = False, group: bool = False) -> dict:
    """What ``tf.io.parse_example`` needs to read a row of ``schema``.

    Global features are required; lists (multi-valued features and sequences) may be empty.
    """
    spec = {}
    for name, each in schema.inputs.items():
        dtype = tf.as_dtype(each.dtype)
        if each.is_list:
            spec[name] = tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int32)
        elif not each.is_length:
            spec[name] = tf.io.FixedLenFeature([], dtype)
    if group:
        spec.setdefault(schema.group, tf.io.FixedLenFeature([], tf.as_dtype(schema.group_dtype)))
    if label:
        spec[schema.label] = tf.io.FixedLenFeature([], tf.float32)
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
        widths = [schema.inputs[field.name].width for field in sequence.fields]
        fields = [columns[field.name] for field in sequence.fields]
        if repair:
            fields = _equally_long(fields, widths)
        length = fields[0].row_lengths() // widths[0]
        for field, ragged, width in zip(sequence.fields, fields, widths, strict=True):
            found = ragged.row_lengths() // width
            with tf.control_dependencies(
                [
                    tf.debugging.assert_equal(
                        tf.stack([found * width, found]),
                        tf.stack([ragged.row_lengths(), length]),
                        message=f"sequence {sequence.name!r}: field {field.name!r} has another "
                        f"number of events than {sequence.fields[0].name!r}",
                    )
                ]
            ):
                # The most recent events stay.
                ragged = ragged[:, -sequence.max_length * width :]
            value = ragged.to_tensor(schema.inputs[field.name].padding)
            if schema.inputs[field.name].multi:
                value = tf.reshape(value, [tf.shape(value)[0], -1, width])
            features[field.name] = value
        features[sequence.length_name] = tf.cast(tf.minimum(length, sequence.max_length), tf.int32)
    return features


def _equally_long(fields: list[tf.RaggedTensor], widths: list[int]) -> list[tf.RaggedTensor]:
    """Of each field the most recent events, as many in each row as its shortest field has."""
    events = [field.row_lengths() // width for field, width in zip(fields, widths, strict=True)]
    shortest = tf.reduce_min(tf.stack(events), axis=0)
    cut = []
    for field, width, found in zip(fields, widths, events, strict=True):
        starts = field.row_starts() + (found - shortest) * width
        cut.append(tf.gather(field.flat_values, tf.ragged.range(starts, starts + shortest * width)))
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
    """Batches of ``(features, label)`` for ``model.fit``.

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
      A ``tf.data.Dataset``; features as in the module's text, label float32 [B].

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
        # Anything else that goes wrong inside the model is not the data's fault.
        if "ParseExample" in str(error) or "another number of events" in message:
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
        return f"{text}: {value}" if text.startswith(_LABEL_MESSAGE) else text
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
    spec = parsing_spec(schema, label=True, group=group)

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
    wrong = tf.boolean_mask(label, (label != 0) & (label != 1))
    check = tf.debugging.Assert(
        tf.equal(tf.size(wrong), 0), [_LABEL_MESSAGE + repr(schema.label), wrong], summarize=1
    )
    with tf.control_dependencies([check]):
        return features, tf.identity(label)
