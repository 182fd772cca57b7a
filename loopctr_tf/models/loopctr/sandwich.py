"""The sandwich that LoopCTR and StackCTR share: tokens, Entry, Loop Blocks, Exit, logits by depth."""

import dataclasses
from typing import NamedTuple

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.errors import UsageError
from loopctr_tf.features.schema import Schema
from loopctr_tf.layers import (
    EntryBlock,
    ExitBlock,
    GroupProjection,
    LoopBlock,
    RecencyEmbedding,
    SequenceCompression,
    masked_mean,
)
from loopctr_tf.layers.block import Streams
from loopctr_tf.layers.common import build
from loopctr_tf.models.chunks import in_chunks
from loopctr_tf.models.encoder import FeatureEncoder, SequenceTokens, TokenGroups
from loopctr_tf.models.objective import MultiDepthObjective, replicas
from loopctr_tf.training.settings import LoopCTRConfig

ROUTERS = (
    "entry_attention",
    "entry_ffn",
    "loop_attention",
    "loop_ffn",
    "exit_attention",
    "exit_ffn",
)
"""First axis of router statistics."""


ROWS_AT_A_TIME = 256
"""Rows that are scored at once: halves the memory of 2,048 rows of 100 events, and takes no longer."""

plain_python = tf.autograph.experimental.do_not_convert
"""All control flow here is explicit; AutoGraph would find nothing and triple the time of tracing."""


class UserSide(NamedTuple):
    """A request's side before the Entry Block.

    Attributes:
      sequences: of each sequence its tokens, n tensors [R, T_s, d].
      masks: of each sequence [R, T_s].
      tokens: user and context tokens, n tensors [R, 1, G_u, d], or nothing.
      extra: further inputs of the tower, [R, 1, e], or None.
    """

    sequences: list[Streams]
    masks: list[tf.Tensor]
    tokens: Streams
    extra: tf.Tensor | None


class UserState(NamedTuple):
    """A request's side after the Entry Block; in ranking nothing in it depends on a candidate.

    Attributes:
      sequence: all sequences' tokens, n tensors [R, T, d].
      mask: [R, T].
      tokens: user and context tokens, n tensors [R, 1, G_u, d]; of rows scored one by one all global
        tokens, [R, 1, G, d].
      extra: further inputs of the tower, [R, 1, e], or None.
      statistics: of the two Entry routers, [2, 2, E].
    """

    sequence: Streams
    mask: tf.Tensor
    tokens: Streams
    extra: tf.Tensor | None
    statistics: tf.Tensor


class SandwichModel(keras.Model):
    """A Keras model that gives one logit for every depth 0..l.

    ``model(features)`` is logits [B, L + 1]; ``model(features, loops=i)`` is [B, i + 1], for any i from
    0 to ``config.max_loops``. ``model.score(features, loops=i)`` is the probability [B] at depth i, for
    which only one Exit is computed. ``model.predict(dataset)`` gives probabilities [rows, L + 1].

    ``fit`` needs ``compile(optimizer)`` alone: the objective is the model's own (eq. 10 and 14).
    Metrics given to ``compile`` are shown the probability at depth 0, the one that is served.

    ``config.precision`` is the policy of the model and of all its layers, whatever Keras's global one.
    Where it is None, they take the global policy of the moment when the model is made, and
    ``model.config`` says which one that was.

    Args:
      schema: of the features.
      config: of the architecture; keyword arguments override it, e.g. ``LoopCTR(schema, dim=32)``.

    Raises:
      UsageError: for settings that do not exist or do not fit together.
    """

    def __init__(self, schema: Schema, config: LoopCTRConfig | None = None, name=None, **settings):
        config = config or LoopCTRConfig()
        if settings:
            config = LoopCTRConfig.from_dict({**config.to_dict(), **settings})
        config = _with_precision(config)
        policy = {"dtype": keras.mixed_precision.Policy(config.precision)}
        # Without casts of its inputs: a number as it is in the logs may need all digits of float32.
        super().__init__(name=name, autocast=False, **policy)
        _check_activation(config.activation)
        _check_fitted(schema)
        self.schema, self.config = schema, config
        block = {
            "heads": config.heads,
            "ffn_dim": config.ffn_dim,
            "experts": config.experts,
            "active_experts": config.active_experts,
            "activation": config.activation,
            "dropout": config.dropout,
            "sink": config.sink,
            "equal_experts": config.equal_experts,
            "dispatch": config.dispatch,
            **policy,
        }
        self.encoder = FeatureEncoder(
            schema, config.embedding_dim or config.dim, name="encoder", **policy
        )
        self.long_projection = GroupProjection(config.dim, name="long_projection", **policy)
        self.compressors, self.recency = {}, {}
        for sequence in schema.sequences:
            if config.recency_embedding:
                self.recency[sequence.name] = RecencyEmbedding(
                    sequence.max_length, name=f"{sequence.name}_recency", **policy
                )
            if sequence.compress:
                self.compressors[sequence.name] = SequenceCompression(
                    config.num_queries,
                    config.heads,
                    config.sink,
                    name=f"{sequence.name}_compression",
                    **policy,
                )
        self.projection = GroupProjection(
            config.dim, shared=not config.group_projection, name="projection", **policy
        )
        self.entry_block = EntryBlock(**block, streams=config.streams, name="entry_block")
        self._make_loop_blocks({**block, "streams": config.streams})
        self.exit_block = ExitBlock(
            **block,
            tower_units=config.tower_units,
            global_norm=config.global_norm,
            name="exit_block",
        )
        self.objective: MultiDepthObjective | None = None
        # All shapes are known, so that weights exist (and can be loaded) before the first batch.
        with tf.name_scope(self.name):
            self._build_layers()
        self.built = True
        self._compiled_depths = tf.function(self._depths, jit_compile=True, autograph=False)

    def _make_loop_blocks(self, arguments: dict) -> None:
        raise NotImplementedError("a sandwich model says which Loop Blocks it has")

    def loop_block_of(self, iteration: int) -> LoopBlock:
        """The Loop Block of iteration 0, 1, ..."""
        raise NotImplementedError("a sandwich model says which Loop Block an iteration uses")

    @property
    def loops_allowed(self) -> int:
        """The most loops that may be asked for."""
        return self.config.max_loops

    @property
    def sequence_tokens(self) -> int:
        """Tokens of all sequences together when every history is full."""
        return sum(
            self.config.num_queries if sequence.compress else sequence.max_length
            for sequence in self.schema.sequences
        )

    @property
    def shares_loop_block(self) -> bool:
        """Whether every iteration uses the same weights."""
        return True

    def _build_layers(self):
        config, encoder = self.config, self.encoder
        build(encoder)
        compressed = [s for s in self.schema.sequences if s.compress]
        tokens = tf.TensorShape([None, None, config.dim])
        if compressed:
            build(self.long_projection, [[None, encoder.width(s)] for s in compressed])
        for layer in (*self.compressors.values(), *self.recency.values()):
            build(layer, tokens)
        features = (*self.schema.request_features, *self.schema.candidate_features)
        widths = [encoder.width(feature) for feature in features]
        widths += [config.dim if s.compress else encoder.width(s) for s in self.schema.sequences]
        build(self.projection, [[None, width] for width in widths])
        state = [tokens] * config.streams
        candidates = tf.TensorShape([None, None, len(features), config.dim])
        build(self.entry_block, ([state], [None], [candidates] * config.streams))
        for block in self._loop_blocks():
            build(block, (state, None, [candidates] * config.streams))
        extra = config.dim * sum(not s.compress for s in self.schema.sequences)
        shapes = (tokens, None, candidates)
        if config.history_mean and extra:
            shapes += (tf.TensorShape([None, 1, extra]),)
        build(self.exit_block, shapes)

    def _loop_blocks(self) -> list[LoopBlock]:
        raise NotImplementedError("a sandwich model lists its Loop Blocks")

    # The parts, in the order in which data passes. N = 1 in training; serving scores N at once.

    def encode_user(self, features, training=None) -> UserState:
        """Projection, compression and Entry of a request's side; ``features`` [R, ...]."""
        side = self._user_side(self.encoder(features))
        return self._entered(side, side.tokens, training)

    def encode_candidates(self, features, training=None) -> Streams:
        """Item and cross tokens, n tensors [R, N, G_c, d], after Entry; ``features`` [R, N, ...]."""
        tokens, _ = self.entry_block.encode_globals(
            self._candidate_tokens(self.encoder(features)), training
        )
        return tokens

    def _user_side(self, groups: TokenGroups) -> UserSide:
        """A request's side before the Entry Block."""
        first = len(groups.request) + len(self.schema.candidate_features)
        sequences, masks, means = [], [], []
        for index, (spec, group) in enumerate(
            zip(self.schema.sequences, groups.sequences, strict=True), start=first
        ):
            tokens, mask = self._sequence_tokens(spec, group, index)
            if self.config.history_mean and not spec.compress:
                means.append(masked_mean(tokens, mask))
            sequences.append(self._replicate(tokens))
            masks.append(mask)
        tokens = ()
        if groups.request:
            projected = [
                self.projection.project(token, group) for group, token in enumerate(groups.request)
            ]
            tokens = self._replicate(tf.stack(projected, axis=-2)[:, None])
        extra = tf.concat(means, axis=-1)[:, None] if means else None
        return UserSide(sequences, masks, tokens, extra)

    def _candidate_tokens(self, groups: TokenGroups) -> Streams:
        """Item and cross tokens before the Entry Block."""
        first = len(self.schema.request_features)
        projected = [
            self.projection.project(token, group)
            for group, token in enumerate(groups.candidate, start=first)
        ]
        return self._replicate(tf.stack(projected, axis=-2))

    def _entered(self, side: UserSide, tokens: Streams, training) -> UserState:
        """``side`` and global ``tokens`` after the Entry Block."""
        (sequences, tokens), statistics = self.entry_block(
            (side.sequences, side.masks, tokens), training=training
        )
        streams = tuple(tf.concat(parts, axis=1) for parts in zip(*sequences, strict=True))
        return UserState(streams, tf.concat(side.masks, axis=1), tokens, side.extra, statistics)

    def _sequence_tokens(self, spec, group: SequenceTokens, index: int):
        """Projected tokens [R, T, d] of one sequence and their mask."""
        recency = self.recency.get(spec.name)
        if not spec.compress:
            tokens = self.projection.project(group.tokens, index)
            return (tokens if recency is None else recency(tokens, group.lengths)), group.mask
        compressed = list(self.compressors)
        tokens = self.long_projection.project(group.tokens, compressed.index(spec.name))
        if recency is not None:
            tokens = recency(tokens, group.lengths)
        tokens = self.compressors[spec.name](tokens, group.mask)
        # Queries that read nothing say nothing: an empty history is not attended to.
        mask = tf.repeat(group.lengths[:, None] > 0, self.config.num_queries, axis=1)
        return self.projection.project(tokens, index), mask

    def _replicate(self, tokens: tf.Tensor) -> Streams:
        return (tokens,) * self.config.streams

    def loop_step(self, block: LoopBlock, sequence, mask, tokens, training=None):
        """One iteration: (sequence, tokens, statistics [2, 2, E])."""
        (sequence, tokens), statistics = block((sequence, mask, tokens), training=training)
        return sequence, tokens, statistics

    def exit_logits(self, sequence: Streams, mask, tokens: Streams, extra=None, training=None):
        """Merges the streams by their mean and scores: (logits [R, N], statistics [2, 2, E])."""
        inputs = (merge_streams(sequence), mask, merge_streams(tokens))
        return self.exit_block(inputs if extra is None else (*inputs, extra), training=training)

    # Keras's side.

    @plain_python
    def call(self, features, loops: int | None = None, training=None, return_statistics=False):
        """Logits [B, loops + 1]; with ``return_statistics`` also [6 routers, loops + 1, 2, E]."""
        loops = self.checked_loops(loops)
        depths = self._compiled_depths if self.config.xla and training else self._depths
        logits, statistics = depths(self._groups(features), loops, training)
        return (logits, statistics) if return_statistics else logits

    def _depths(self, groups: TokenGroups, loops: int, training):
        """Logits [B, loops + 1] and statistics [6 routers, loops + 1, 2, E]."""
        state = self._encode(groups, training)
        merged = merge_streams(state.sequence)[None], merge_streams(state.tokens)[None]
        counts = tf.zeros_like(state.statistics)[None]  # of the Loop Block, [depths, 2, 2, E]
        if loops:
            *later, loop_counts = self._run_loops(state, loops, training, every_depth=True)
            merged = (tf.concat(parts, axis=0) for parts in zip(merged, later, strict=True))
            counts = tf.concat([counts, loop_counts], axis=0)
        logits, exit_counts = self._exits(*merged, state, loops + 1, training)
        entry = tf.pad(state.statistics[None], [[0, loops], [0, 0], [0, 0], [0, 0]])
        statistics = tf.concat([entry, counts, exit_counts], axis=1)
        return logits, tf.transpose(statistics, [1, 0, 2, 3])

    def _exits(self, sequences, tokens, state: UserState, depths: int, training):
        """The Exit Block on all depths at once: a quarter of the operations of one call for each.

        Args:
          sequences: merged streams [depths, B, T, d].
          tokens: [depths, B, 1, G, d].
          state: has the mask and further inputs of the tower, the same at all depths.

        Returns:
          (logits [B, depths], statistics [depths, 2 routers, 2, E]).
        """

        def exits(sequences, tokens):
            inputs = [
                tf.reshape(x, tf.concat([[-1], tf.shape(x)[2:]], axis=0))
                for x in (sequences, tokens)
            ]
            for x, whole in zip(inputs, (sequences, tokens), strict=True):
                x.set_shape([None, *whole.shape[2:]])
            inputs.insert(1, tf.tile(state.mask, [depths, 1]))
            if state.extra is not None:
                inputs.append(tf.tile(state.extra, [depths, 1, 1]))
            logits, counts = self.exit_block(inputs, training=training, depths=depths)
            return tf.reshape(logits, [depths, -1]), counts

        if training and self.config.recompute:
            exits = tf.recompute_grad(exits)
        logits, counts = exits(sequences, tokens)
        return tf.transpose(logits), counts

    def score(self, features, loops: int = 0) -> tf.Tensor:
        """Probability float32 [B] after ``loops`` loops.

        Rows go through in chunks of :data:`ROWS_AT_A_TIME`.
        """
        loops = self.checked_loops(loops)
        features = {name: features[name] for name in self.schema.input_specs()}
        rows = tf.shape(next(iter(features.values())))[0]

        def score(start, end):
            return self._score({name: x[start:end] for name, x in features.items()}, loops)

        scores = in_chunks(rows, ROWS_AT_A_TIME, score)
        scores.set_shape([None])
        return scores

    def _score(self, features, loops: int) -> tf.Tensor:
        state = self._encode(self.encoder(features), training=False)
        sequence, tokens = state.sequence, state.tokens
        if loops:
            sequence, tokens = self._run_loops(state, loops, False, every_depth=False)
        logits, _ = self.exit_logits(sequence, state.mask, tokens, state.extra, training=False)
        return tf.sigmoid(tf.cast(logits[:, 0], tf.float32))

    def _groups(self, features) -> TokenGroups:
        """The features of the schema, encoded; others may be there."""
        return self.encoder({name: features[name] for name in self.schema.input_specs()})

    def _encode(self, groups: TokenGroups, training) -> UserState:
        """A batch of rows as requests with one candidate each; ``tokens`` are all global ones."""
        candidates = groups._replace(candidate=[token[:, None] for token in groups.candidate])
        side = self._user_side(groups)
        tokens = join_tokens(side.tokens, self._candidate_tokens(candidates))
        return self._entered(side, tokens, training)

    def _run_loops(self, state: UserState, loops, training, every_depth):
        """Loops 1..l.

        Returns:
          With ``every_depth`` merged streams, sequences [l, R, T, d] and tokens [l, R, N, G, d], and the
          Loop Block's statistics [l, 2, 2, E]; else the last (sequence, tokens).
        """
        mask = state.mask

        def step(block, sequence, tokens):
            sequence, tokens, counts = self.loop_step(block, sequence, mask, tokens, training)
            merged = (merge_streams(sequence), merge_streams(tokens), counts) if every_depth else ()
            return sequence, tokens, merged

        if training and self.config.recompute:
            step = _recomputed(step)
        sequence, tokens = state.sequence, state.tokens
        if self._unrolls(training):
            outputs = []
            for iteration in range(loops):
                sequence, tokens, output = step(self.loop_block_of(iteration), sequence, tokens)
                outputs.append(output)
            if not every_depth:
                return sequence, tokens
            return tuple(tf.stack(parts) for parts in zip(*outputs, strict=True))

        block = self.loop_block_of(0)
        kept = (sequence[0], tokens[0], state.statistics) if every_depth else ()
        arrays = tuple(tf.TensorArray(x.dtype, size=loops, element_shape=x.shape) for x in kept)

        def body(iteration, sequence, tokens, arrays):
            sequence, tokens, output = step(block, sequence, tokens)
            arrays = tuple(
                array.write(iteration, value) for array, value in zip(arrays, output, strict=True)
            )
            return iteration + 1, sequence, tokens, arrays

        _, sequence, tokens, arrays = tf.while_loop(
            lambda iteration, *_: iteration < loops,
            body,
            (tf.constant(0), sequence, tokens, arrays),
            maximum_iterations=loops,
        )
        return tuple(array.stack() for array in arrays) if every_depth else (sequence, tokens)

    def _unrolls(self, training) -> bool:
        if not self.shares_loop_block:
            return True
        if self.config.loop_execution == "auto":
            # On two cores the gradient of a while_loop takes a quarter longer; without one it is as fast
            # as the unrolled graph, and a third of it at L = 3.
            return bool(training)
        return self.config.loop_execution == "unrolled"

    def checked_loops(self, loops: int | None) -> int:
        """``loops``, or those of training where it is None; UsageError outside what may be asked for."""
        if loops is None:
            return self.config.loops
        if isinstance(loops, bool) or not isinstance(loops, int) or loops < 0:
            raise UsageError(
                f"loops is {loops!r}; give a whole number from 0 to {self.loops_allowed}"
            )
        if loops > self.loops_allowed:
            raise UsageError(
                f"loops is {loops}; this model runs at 0 to {self.loops_allowed} loops "
                "(LoopCTRConfig.max_loops)"
            )
        return loops

    def compile(self, optimizer="rmsprop", loss=None, **kwargs):
        """Keras's compile, without ``loss``: the objective is the model's own."""
        if loss is not None:
            raise UsageError(
                f"loss is {loss!r}; leave it out, the model brings the multi-depth objective "
                "(settings: balance_weight, supervision)"
            )
        if kwargs.get("jit_compile"):
            raise UsageError(
                "jit_compile is True; leave it out and make the model with xla=True: XLA compiles no "
                "strings, and so not the whole step"
            )
        super().compile(optimizer=optimizer, **kwargs)
        with self.distribute_strategy.scope():
            self.objective = MultiDepthObjective(
                self.config.loops + 1, self.config.balance_weight, self.config.supervision
            )
            # Variables made while a step is traced would have it traced twice.
            if isinstance(self.optimizer, keras.optimizers.Optimizer):
                self.optimizer.build(self.trainable_variables)

    def compile_from_config(self, config):
        """Compiles a loaded model as it was when it was saved."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    @property
    def metrics(self):
        """The objective's metrics, then those given to ``compile``."""
        if self.objective is None:
            return []
        return [*self.objective.tracked_metrics, *self.compiled_metrics.metrics]

    @plain_python
    def train_step(self, data):
        """One step on (features, label[, sample weight])."""
        features, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            logits, statistics = self(features, training=True, return_statistics=True)
            loss = self.objective(labels, logits, statistics, weights)
            if self.losses:
                loss += tf.add_n(self.losses) / replicas()
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        return self._show(labels, logits, weights)

    @plain_python
    def test_step(self, data):
        """Metrics on (features, label[, sample weight])."""
        features, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        logits, statistics = self(features, training=False, return_statistics=True)
        self.objective(labels, logits, statistics, weights)
        return self._show(labels, logits, weights)

    @plain_python
    def predict_step(self, data):
        """Probabilities [B, L + 1]."""
        features, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return tf.sigmoid(tf.cast(self(features, training=False), tf.float32))

    def _show(self, labels, logits, weights):
        if self.compiled_metrics.metrics or self.compiled_metrics._user_metrics:
            labels = tf.reshape(labels, [-1, 1])
            served = tf.sigmoid(tf.cast(logits[:, :1], tf.float32))
            self.compiled_metrics.update_state(labels, served, sample_weight=weights)
        return {metric.name: metric.result() for metric in self.metrics}

    def get_config(self):
        """Constructor arguments: the schema with its vocabularies, and the settings."""
        return {
            "name": self.name,
            "schema": self.schema.to_dict(),
            "config": self.config.to_dict(),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The inverse of :meth:`get_config`."""
        return cls(
            Schema.from_dict(config["schema"]),
            LoopCTRConfig.from_dict(config["config"]),
            name=config.get("name"),
        )


def join_tokens(user: Streams, candidate: Streams) -> Streams:
    """User tokens [R, 1, G_u, d] beside candidate tokens [R, N, G_c, d]: [R, N, G, d], by stream.

    Streams that are one tensor stay one, which spares the Entry Block to do the same twice.
    """
    if not user or not candidate:
        return user or candidate

    def joined(u, c):
        return tf.concat([tf.repeat(u, tf.shape(c)[1], axis=1), c], axis=2)

    if all(stream is streams[0] for streams in (user, candidate) for stream in streams):
        return (joined(user[0], candidate[0]),) * len(user)
    return tuple(joined(u, c) for u, c in zip(user, candidate, strict=True))


def _recomputed(step):
    """``step`` of a loop, whose inner values are not kept for the backward pass."""

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


def _with_precision(config: LoopCTRConfig) -> LoopCTRConfig:
    """``config`` with the precision of Keras's global policy where it names none."""
    if config.precision is not None:
        return config
    policy = keras.mixed_precision.global_policy().name
    try:
        return dataclasses.replace(config, precision=policy)
    except UsageError as error:
        raise UsageError(
            f"Keras's global policy is {policy!r}, which these models do not know; give them a "
            "precision: 'float32' or 'mixed_bfloat16'"
        ) from error


def _check_activation(name: str) -> None:
    try:
        keras.activations.get(name)
    except ValueError as error:
        raise UsageError(
            f"activation is {name!r}; give a name that Keras knows, e.g. 'gelu'"
        ) from error


def _check_fitted(schema: Schema) -> None:
    for table in schema.tables:
        if table.vocabulary == ():
            raise UsageError(
                f"table {table.name!r} has an empty vocabulary, so that all its values are one; load "
                "the schema of the prepared folder, where it is fitted, or give it hash_buckets"
            )
