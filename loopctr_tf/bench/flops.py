"""Floating-point operations of a model's matrix products, counted from its settings.

A multiply and its add are two operations. Only active experts count: what a perfect implementation
would have to do. Element-wise work (norms, activations, softmax, hyper-connections' sums) is left out,
so that a share of the machine's matrix-product rate can be read from the count.
"""

from itertools import pairwise
from typing import NamedTuple


class Work(NamedTuple):
    """Operations at one depth.

    Attributes:
      user: of a request's side, once a request.
      candidate: of each candidate, when the user's side is at hand.
      row: of a row that is scored alone, both sides together.
    """

    user: int
    candidate: int
    row: int


def forward_work(model, lengths: dict[str, int], loops: int) -> Work:
    """Operations of zero or more loops on a user with histories of ``lengths`` (sequence -> events).

    ``lengths`` beyond a sequence's ``max_length`` count as that.
    """
    config, schema, encoder = model.config, model.schema, model.encoder
    d = config.dim
    user = tokens = 0
    sequences = []
    for sequence in schema.sequences:
        events, width = min(lengths[sequence.name], sequence.max_length), encoder.width(sequence)
        if sequence.compress:
            user += _product(events, width, d) + 2 * _product(events, d, d)
            queries = config.num_queries
            user += 2 * _product(queries, d, d) + 2 * _product(queries, d, events)
            events, width = queries, d
        user += _product(events, width, d)
        sequences.append(events)
        tokens += events
    user += sum(_sequence_block(config, events) for events in sequences)
    user += loops * _sequence_block(config, tokens)
    # The Exit's keys and values.
    user += _product(tokens, d, d) + _experts(config, tokens) + tokens * _router(config)

    def side(features):
        entry = sum(_product(1, encoder.width(feature), d) for feature in features)
        count = len(features)
        entry += count * (
            2 * _experts(config, 1) + _router(config) + _feed_forward(config) + _residuals(config)
        )
        return entry

    every = len(schema.request_features) + len(schema.candidate_features)
    loop = every * (
        2 * _product(1, d, d)
        + 2 * _experts(config, 1)
        + _router(config)
        + 2 * _product(1, d, tokens + every)
        + _feed_forward(config)
        + _residuals(config)
    )
    # Entry and Exit share nothing between tokens, loops everything.
    last = (
        _product(1, d, d)
        + _experts(config, 1)
        + _router(config)
        + 2 * _product(1, d, tokens)
        + _feed_forward(config)
        + _product(1, d, model.exit_block.tower_width)
    )
    units = [*config.tower_units, 1]
    tower = sum(_product(1, a, b) for a, b in pairwise(units))
    own = len(schema.candidate_features)
    of_user, of_candidate = side(schema.request_features), side(schema.candidate_features)
    if config.history_mean:
        plain = sum(not sequence.compress for sequence in schema.sequences)
        user += _product(1, plain * d, model.exit_block.tower_width)
    user += of_user
    if loops:
        candidate = of_candidate + loops * loop + every * last + tower
        return Work(user, candidate, user + candidate)
    user += (every - own) * last
    candidate = of_candidate + own * last + tower
    return Work(user, candidate, user + candidate)


def _product(rows: int, inner: int, columns: int) -> int:
    return 2 * rows * inner * columns


def _experts(config, tokens: int) -> int:
    """One mixture of d x d maps."""
    return config.active_experts * _product(tokens, config.dim, config.dim)


def _router(config) -> int:
    """The choice of experts of one token."""
    return _product(1, config.dim, config.experts)


def _feed_forward(config) -> int:
    """The feed-forward experts of one token, and their router."""
    return config.active_experts * 2 * _product(1, config.dim, config.ffn_dim) + _router(config)


def _residuals(config) -> int:
    """The coefficients of both hyper-connections of one token."""
    n = config.streams
    return 2 * n * _product(1, config.dim, n + 2) if n > 1 else 0


def _sequence_block(config, tokens: int) -> int:
    """A whole block on tokens that see each other."""
    d = config.dim
    return (
        2 * _product(tokens, d, d)
        + 2 * _experts(config, tokens)
        + 2 * _product(tokens, d, tokens)
        + tokens * (_router(config) + _feed_forward(config) + _residuals(config))
    )
