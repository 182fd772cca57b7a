"""Floating-point operations of a model's matrix products, counted from its settings.

A multiply and its add are two operations. Only active experts count: what a perfect implementation
would have to do. Element-wise work (norms, activations, softmax, hyper-connections' sums) is left out,
so that a share of the machine's matrix-product rate can be read from the count, and so is the column by
which attention's products carry masks and sinks.
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


class _Parts(NamedTuple):
    """Operations of a request's sequences, and of one global token of each side, by block."""

    entry: int  # of the sequences, with what compresses them
    loop: int
    shown: int  # the Exit's keys and values
    extra: int  # further inputs of the tower
    user_entry: int
    candidate_entry: int
    global_loop: int  # of every global token
    read: int  # the Exit for one global token, with its share of the tower's first layer
    tower: int  # the layers behind the first one


def forward_work(model, lengths: dict[str, int], loops: int) -> Work:
    """Operations of zero or more loops on a user with histories of ``lengths`` (sequence -> events).

    ``lengths`` beyond a sequence's ``max_length`` count as that.
    """
    parts, schema = _parts(model, lengths), model.schema
    users, own = len(schema.request_features), len(schema.candidate_features)
    user = parts.entry + loops * parts.loop + parts.shown + parts.extra + parts.user_entry
    candidate = parts.candidate_entry + parts.tower + own * parts.read
    # At zero loops a user's token meets no candidate, so that it is read once a request.
    if loops:
        candidate += loops * (users + own) * parts.global_loop + users * parts.read
    else:
        user += users * parts.read
    return Work(user, candidate, user + candidate)


def training_work(model, lengths: dict[str, int]) -> int:
    """Operations of one row in training: all depths forward, and twice as much backward."""
    parts, loops = _parts(model, lengths), model.config.loops
    count = len(model.schema.features)
    entry = parts.entry + parts.user_entry + parts.candidate_entry
    loop = parts.loop + count * parts.global_loop
    exit_block = parts.shown + parts.extra + count * parts.read + parts.tower
    return 3 * (entry + loops * loop + (loops + 1) * exit_block)


def _parts(model, lengths: dict[str, int]) -> _Parts:
    config, schema, encoder = model.config, model.schema, model.encoder
    d, first = config.dim, model.exit_block.tower_width
    entry = tokens = 0
    for sequence in schema.sequences:
        events, width = min(lengths[sequence.name], sequence.max_length), encoder.width(sequence)
        if sequence.compress:
            queries = config.num_queries
            entry += _product(events, width, d) + 2 * _product(events, d, d)
            entry += 2 * _product(queries, d, d) + 2 * _product(queries, d, events)
            events, width = queries, d
        entry += _product(events, width, d) + _sequence_block(config, events, entry=True)
        tokens += events
    count = len(schema.features)

    def entered(features):
        projected = sum(_product(1, encoder.width(feature), d) for feature in features)
        token = 2 * _experts(config, 1) + _router(config)
        token += _feed_forward(config) + _residuals(config, entry=True)
        return projected + len(features) * token

    plain = sum(not sequence.compress for sequence in schema.sequences)
    units = [*config.tower_units, 1]
    return _Parts(
        entry=entry,
        loop=_sequence_block(config, tokens),
        shown=_product(tokens, d, d) + _experts(config, tokens) + tokens * _router(config),
        extra=_product(1, plain * d, first) if config.history_mean else 0,
        user_entry=entered(schema.request_features),
        candidate_entry=entered(schema.candidate_features),
        global_loop=2 * _product(1, d, d)
        + 2 * _experts(config, 1)
        + _router(config)
        + 2 * _product(1, d, tokens + count)
        + _feed_forward(config)
        + _residuals(config),
        read=_product(1, d, d)
        + _experts(config, 1)
        + _router(config)
        + 2 * _product(1, d, tokens)
        + _feed_forward(config)
        + _product(1, d, first),
        tower=sum(_product(1, a, b) for a, b in pairwise(units)),
    )


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


def _residuals(config, entry: bool = False) -> int:
    """The coefficients of both hyper-connections of one token.

    Where the Entry Block begins all streams are equal, and so are their products.
    """
    n = config.streams
    products = 1 + n if entry else 2 * n
    return products * _product(1, config.dim, n + 2) if n > 1 else 0


def _sequence_block(config, tokens: int, entry: bool = False) -> int:
    """A whole block on tokens that see each other."""
    d = config.dim
    return (
        2 * _product(tokens, d, d)
        + 2 * _experts(config, tokens)
        + 2 * _product(tokens, d, tokens)
        + tokens * (_router(config) + _feed_forward(config) + _residuals(config, entry))
    )
