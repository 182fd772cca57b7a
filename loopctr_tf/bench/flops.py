"""Operations of a model's matrix products, counted while it runs once.

What counts: see :func:`loopctr_tf.layers.counting.count_flops`.
"""

from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from loopctr_tf.layers.counting import count_flops


def flops_of(call: Callable[..., object], *arguments, **keywords) -> int:
    """Operations of one eager call."""
    with count_flops() as counted:
        call(*arguments, **keywords)
    return sum(counted)


def training_flops(model, batches: Sequence) -> float:
    """Operations a row of a training step: forward, and twice as much backward.

    Args:
      model: any Keras model whose products go through the library's layers.
      batches: of (features, label); the mean over them, each with its own padding.
    """
    first_rows = ({name: value[:1] for name, value in batch.items()} for batch, _ in batches)
    return 3 * sum(flops_of(model, row) for row in first_rows) / len(batches)


def ranking_flops(model, user: Mapping, candidate: Mapping, head: str) -> tuple[int, int]:
    """Operations of one user's side, and of one candidate once the user's side is available.

    Args:
      model: of the ranking signatures.
      user: user and context features of one request, [1, ...].
      candidate: item and cross features of one candidate, [1, 1, ...].
      head: the output that candidates are ranked by.
    """
    user, candidate = (
        model.encoder({name: tf.constant(value) for name, value in features.items()})
        for features in (user, candidate)
    )
    (state,) = model.encode_user(user, (head,))
    return (
        flops_of(model.encode_user, user, (head,)),
        flops_of(model.rank, state, candidate, head),
    )
