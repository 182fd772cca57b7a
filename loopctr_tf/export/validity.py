"""What can be wrong with a request whose names, types and ranks are right: refused or repaired.

A model server cannot know that a length lies beyond the data or that a number is not finite.
``reject`` fails such a request with a message that names the feature; ``repair`` makes it valid, for
servers that batch, where one request's failed assertion would fail every request merged with it.
"""

import tensorflow as tf

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema

MODES = ("reject", "repair")


def check_mode(mode: str) -> str:
    """``mode``, or UsageError when it is neither "reject" nor "repair"."""
    if mode not in MODES:
        raise UsageError(f"bad_input is {mode!r}; choose {' or '.join(MODES)}")
    return mode


def validated(features: dict[str, tf.Tensor], schema: Schema, mode: str) -> dict[str, tf.Tensor]:
    """``features`` of one signature, checked or repaired in the graph.

    Args:
      features: some or all inputs of ``schema``: the features of either side, with any batch axes.
      schema: of the features.
      mode: "reject": a length that is negative or beyond the data, sequence fields of unequal
        length and numbers that are NaN or infinite fail with INVALID_ARGUMENT. "repair": lengths
        are clipped, fields cut to the shortest, such numbers take the feature's default.

    In both modes inputs of unequal first dimensions, or candidates of unequal second ones, fail: a
    dimension of 1 beside B would otherwise be repeated in silence.

    Returns:
      The features to score. Numbers in padding are not looked at, they have no influence.
    """
    features = aligned(features, schema)
    for sequence in schema.sequences:
        if sequence.length_name in features:
            _sequence(features, sequence, mode)
    for feature in schema.features:
        if feature.type == "numeric" and feature.name in features:
            value = features[feature.name]
            features[feature.name] = _finite(value, tf.ones_like(value, tf.bool), feature, mode)
    return features


def aligned(tensors: dict[str, tf.Tensor], schema: Schema) -> dict[str, tf.Tensor]:
    """``tensors``, all with one first dimension; item and cross features [R, N, ...] also one N."""
    specs = schema.inputs
    checks = [_refuse_unequal(tensors, 0, "first")]
    candidates = {
        name: value
        for name, value in tensors.items()
        if name in specs and specs[name].candidate and value.shape.rank > len(specs[name].shape)
    }
    if candidates:
        checks.append(_refuse_unequal(candidates, 1, "second"))
    with tf.control_dependencies(checks):
        return {name: tf.identity(value) for name, value in tensors.items()}


def _refuse_unequal(tensors, axis, ordinal):
    sizes = tf.stack([tf.shape(value)[axis] for value in tensors.values()])
    return tf.debugging.Assert(
        tf.reduce_all(sizes == sizes[0]),
        [f"the {ordinal} dimensions of {', '.join(tensors)} must be equal; received", sizes],
        summarize=len(tensors),
    )


def _sequence(features, sequence, mode):
    name = sequence.length_name
    lengths = features[name]
    sizes = tf.stack([tf.shape(features[field.name])[1] for field in sequence.fields])
    size = tf.reduce_min(sizes)
    if mode == "repair":
        for field in sequence.fields:
            features[field.name] = features[field.name][:, :size]
        lengths = tf.clip_by_value(lengths, 0, size)
    else:
        names = ", ".join(field.name for field in sequence.fields)
        with tf.control_dependencies(
            [
                tf.debugging.Assert(
                    tf.reduce_all(sizes == size),
                    [
                        f"fields {names} of sequence {sequence.name} differ in their second "
                        "dimension; pad them to one length. Received sizes",
                        sizes,
                    ],
                ),
                _refuse_lengths(lengths, size, name),
            ]
        ):
            lengths = tf.identity(lengths)
    features[name] = lengths
    real = tf.sequence_mask(lengths, size)
    for field in sequence.fields:
        if field.type == "numeric":
            features[field.name] = _finite(features[field.name], real, field, mode)


def _refuse_lengths(lengths, size, name):
    wrong = tf.boolean_mask(lengths, (lengths < 0) | (lengths > size))
    return tf.debugging.Assert(
        tf.size(wrong) == 0,
        [f"{name} must be from 0 to the number of events sent; received", wrong[:1], "with", size],
    )


def _finite(values, real, feature, mode):
    bad = real & ~tf.math.is_finite(values)
    if mode == "repair":
        return tf.where(bad, tf.constant(feature.default, values.dtype), values)
    check = tf.debugging.Assert(
        ~tf.reduce_any(bad),
        [f"{feature.name} must be finite; received", tf.boolean_mask(values, bad)[:1]],
    )
    with tf.control_dependencies([check]):
        return tf.identity(values)


def refine_counts(counts: tf.Tensor, mode: str) -> tf.Tensor:
    """``refine_top_k`` [R] of a cascade: negative ones fail ("reject") or mean none ("repair")."""
    if mode == "repair":
        return tf.maximum(counts, 0)
    wrong = tf.boolean_mask(counts, counts < 0)
    check = tf.debugging.Assert(
        tf.size(wrong) == 0, ["refine_top_k must be 0 or more; received", wrong[:1]]
    )
    with tf.control_dependencies([check]):
        return tf.identity(counts)


def checked_state_version(versions: tf.Tensor, wanted: str) -> tf.Operation:
    """Fails, in either mode, when a user's state [R] was made by another model or for another depth."""
    foreign = tf.boolean_mask(versions, versions != wanted)
    return tf.debugging.Assert(
        tf.size(foreign) == 0,
        [
            f"state_version must be {wanted}, this model's; encode the user again. Received",
            foreign[:1],
        ],
    )


def same_sizes(
    tensors: dict[str, tf.Tensor], specs: dict[str, tf.TensorSpec]
) -> list[tf.Operation]:
    """Fails when a tensor of users' states has other sizes, the first axis apart, than its spec."""
    checks = []
    for name, spec in specs.items():
        sizes = tf.shape(tensors[name])
        expected = list(spec.shape[1:])
        checks.append(
            tf.debugging.Assert(
                tf.reduce_all(sizes[1:] == tf.constant(expected, tf.int32)),
                [f"{name} must have the sizes {expected} after its first; received", sizes],
            )
        )
    return checks
