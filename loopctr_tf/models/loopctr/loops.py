"""The iterations of the Loop Block: as a tf.while_loop or unrolled, recomputed or not."""

from typing import NamedTuple

import tensorflow as tf

from loopctr_tf.layers.block import Streams


class EncodedRows(NamedTuple):
    """Rows, or a request's side, after the Entry Block.

    Attributes:
      sequence: all sequences' tokens, n tensors [R, T, d].
      mask: [R, T].
      tokens: of rows all global tokens, n tensors [R, 1, G, d]; of a request's side user and context
        tokens, [R, 1, G_u, d], or nothing.
      extra: further inputs of the tower, [R, 1, e], or None.
      statistics: of the two Entry routers, [2, 2, E].
    """

    sequence: Streams
    mask: tf.Tensor
    tokens: Streams
    extra: tf.Tensor | None
    statistics: tf.Tensor


def run_loops(model, state: EncodedRows, loops: int, training, every_depth: bool):
    """Loops 1..l.

    Args:
      model: a LoopCTR or StackCTR, for its Loop Blocks and the way of execution.
      state: what the Entry Block made of the rows.
      loops: l, 1 or more.
      training: of Keras.
      every_depth: whether the values after every iteration are wanted, or only the last ones.

    Returns:
      With ``every_depth`` merged streams, sequences [l, R, T, d] and tokens [l, R, N, G, d], and the
      Loop Block's statistics [l, 2, 2, E]; else the last (sequence, tokens).
    """

    def step(block, sequence, tokens):
        inputs = (sequence, state.mask, tokens)
        (sequence, tokens), counts = block(inputs, training=training)
        merged = (merge_streams(sequence), merge_streams(tokens), counts) if every_depth else ()
        return sequence, tokens, merged

    if training and model.execution.recompute:
        step = _recomputed(step)
    if _unrolls(model, training):
        return _unrolled(model, step, state, loops, every_depth)
    return _while_loop(model.loop_block_of(0), step, state, loops, every_depth)


def _unrolls(model, training) -> bool:
    if not model.shares_loop_block:
        return True
    if model.execution.loop_execution == "auto":
        # On two cores the gradient of a while_loop takes a quarter longer; without one it is as fast
        # as the unrolled graph, and a third of it at L = 3.
        return bool(training)
    return model.execution.loop_execution == "unrolled"


def _unrolled(model, step, state: EncodedRows, loops: int, every_depth: bool):
    sequence, tokens, outputs = state.sequence, state.tokens, []
    for iteration in range(loops):
        sequence, tokens, output = step(model.loop_block_of(iteration), sequence, tokens)
        outputs.append(output)
    if not every_depth:
        return sequence, tokens
    return tuple(tf.stack(values) for values in zip(*outputs, strict=True))


def _while_loop(block, step, state: EncodedRows, loops: int, every_depth: bool):
    first = (state.sequence[0], state.tokens[0], state.statistics) if every_depth else ()
    arrays = tuple(tf.TensorArray(x.dtype, size=loops, element_shape=x.shape) for x in first)

    def body(iteration, sequence, tokens, arrays):
        sequence, tokens, output = step(block, sequence, tokens)
        arrays = tuple(
            array.write(iteration, value) for array, value in zip(arrays, output, strict=True)
        )
        return iteration + 1, sequence, tokens, arrays

    _, sequence, tokens, arrays = tf.while_loop(
        lambda iteration, *_: iteration < loops,
        body,
        (tf.constant(0), state.sequence, state.tokens, arrays),
        maximum_iterations=loops,
    )
    return tuple(array.stack() for array in arrays) if every_depth else (sequence, tokens)


def _recomputed(step):
    """``step`` of a loop, whose inner values are recomputed in the backward pass."""

    def recomputed(block, sequence, tokens):
        state = tf.nest.flatten((sequence, tokens))

        def flat_step(*state):
            arguments = tf.nest.pack_sequence_as((sequence, tokens), state)
            return tf.nest.flatten(step(block, *arguments))

        outputs = tf.recompute_grad(flat_step)(*state)
        places = len(state)
        return (
            *tf.nest.pack_sequence_as((sequence, tokens), outputs[:places]),
            tuple(outputs[places:]),
        )

    return recomputed


def merge_streams(streams: Streams) -> tf.Tensor:
    """The mean of the streams: what the Exit Block sees."""
    return streams[0] if len(streams) == 1 else tf.add_n(streams) / len(streams)


def join_tokens(user: Streams, candidate: Streams) -> Streams:
    """User tokens [R, 1, G_u, d] beside candidate tokens [R, N, G_c, d]: [R, N, G, d], by stream.

    Streams that are one tensor stay one, which saves the Entry Block from doing the work twice.
    """
    if not user or not candidate:
        return user or candidate

    def joined(u, c):
        return tf.concat([tf.repeat(u, tf.shape(c)[1], axis=1), c], axis=2)

    if all(stream is streams[0] for streams in (user, candidate) for stream in streams):
        return (joined(user[0], candidate[0]),) * len(user)
    return tuple(joined(u, c) for u, c in zip(user, candidate, strict=True))
