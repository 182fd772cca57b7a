"""LoopCTR and StackCTR: tokens, Entry, Loop Blocks, Exit, one logit for every depth."""

from typing import NamedTuple

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.errors import UsageError
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
from loopctr_tf.models.base import RankingModel, Scores, no_autograph
from loopctr_tf.models.encoder import SequenceTokens, TokenGroups, TokenWidths
from loopctr_tf.models.loopctr.balance import balance_share
from loopctr_tf.models.loopctr.loops import EncodedRows, join_tokens, merge_streams, run_loops
from loopctr_tf.models.loopctr.ranking import CachedUser
from loopctr_tf.models.loopctr.settings import LoopCTRConfig
from loopctr_tf.models.settings import ExecutionConfig


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


@keras.utils.register_keras_serializable("loopctr_tf")
class LoopCTR(CachedUser, RankingModel):
    """The paper's model: one Loop Block, applied L times in training and any number of times later.

    Its heads are ``loop_0`` ... ``loop_L``. ``model(features, loops=i)`` is [B, i + 1], for any i from 0
    to ``config.max_loops``; ``model.score(features, loops=i)`` is the probability [B] at depth i, for
    which only one Exit is computed. The number of parameters does not depend on ``config.loops``.
    """

    config_class = LoopCTRConfig
    executions = frozenset(ExecutionConfig.model_fields)
    shares_loop_block = True
    """Whether every iteration uses the same weights."""

    def build_layers(self, widths: TokenWidths) -> None:
        """Creates the projections, the Entry, the Loop Block or Blocks, and the Exit."""
        config, policy = self.config, {"dtype": self.dtype_policy}
        _check_activation(config.activation)
        block = {
            "heads": config.heads,
            "ffn_dim": config.ffn_dim,
            "experts": config.experts,
            "active_experts": config.active_experts,
            "activation": config.activation,
            "dropout": config.dropout,
            "sink": config.sink,
            "equal_experts": config.equal_experts,
            "zero_outputs": config.zero_outputs,
            "dispatch": self.execution.dispatch,
            **policy,
        }
        tokens = tf.TensorShape([None, None, config.dim])
        sequences = self.schema.sequences
        self.long_projection = GroupProjection(config.dim, name="long_projection", **policy)
        compressed = [w for s, w in zip(sequences, widths.sequences, strict=True) if s.compress]
        if compressed:
            build(self.long_projection, [[None, width] for width in compressed])
        self.compressors, self.recency = {}, {}
        for sequence in sequences:
            if sequence.compress:
                self.compressors[sequence.name] = SequenceCompression(
                    config.num_queries,
                    config.heads,
                    config.sink,
                    name=f"{sequence.name}_compression",
                    **policy,
                )
            if config.recency_embedding:
                self.recency[sequence.name] = RecencyEmbedding(
                    sequence.max_length, name=f"{sequence.name}_recency", **policy
                )
        for layer in (*self.compressors.values(), *self.recency.values()):
            build(layer, tokens)
        groups = [*widths.request, *widths.candidate]
        candidates = tf.TensorShape([None, None, len(groups), config.dim])
        groups += [
            config.dim if s.compress else width
            for s, width in zip(sequences, widths.sequences, strict=True)
        ]
        self.projection = GroupProjection(
            config.dim, shared=not config.group_projection, name="projection", **policy
        )
        build(self.projection, [[None, width] for width in groups])
        streams = {"streams": config.streams}
        self.entry_block = EntryBlock(**block, **streams, name="entry_block")
        build(
            self.entry_block, ([[tokens] * config.streams], [None], [candidates] * config.streams)
        )
        self._make_loop_blocks({**block, **streams})
        for loop_block in self._loop_blocks():
            build(loop_block, ([tokens] * config.streams, None, [candidates] * config.streams))
        self.exit_block = ExitBlock(
            **block,
            tower_units=config.tower_units,
            global_norm=config.global_norm,
            name="exit_block",
        )
        shapes = (tokens, None, candidates)
        extra = config.dim * sum(not s.compress for s in sequences)
        if config.history_mean and extra:
            shapes += (tf.TensorShape([None, 1, extra]),)
        build(self.exit_block, shapes)
        self._compiled_depths = tf.function(self._depths, jit_compile=True, autograph=False)

    def _make_loop_blocks(self, arguments: dict) -> None:
        self.loop_block = LoopBlock(**arguments, name="loop_block")

    def _loop_blocks(self) -> list[LoopBlock]:
        return [self.loop_block]

    def loop_block_of(self, iteration: int) -> LoopBlock:
        """The Loop Block of iteration 0, 1, ..."""
        return self.loop_block

    # Heads are depths.

    @property
    def heads(self) -> tuple[str, ...]:
        """``loop_0`` ... ``loop_L``."""
        return self.heads_to(self.config.loops)

    def heads_to(self, loops: int | None) -> tuple[str, ...]:
        """``loop_0`` ... ``loop_i``; UsageError for a depth that the model cannot run at."""
        return tuple(f"loop_{i}" for i in range(self.checked_loops(loops) + 1))

    def loops_of(self, head: str) -> int:
        """i of ``loop_i``; UsageError for another name."""
        number = head.removeprefix("loop_")
        if number == head or not number.isdigit():
            raise UsageError(f"head is {head!r}; give loop_0 to loop_{self.loops_allowed}")
        return self.checked_loops(int(number))

    @property
    def head_weights(self) -> tuple[float, ...]:
        """Equal ones, or the last depth alone (``config.supervision``)."""
        loops = self.config.loops
        if self.config.supervision == "all":
            return (1 / (loops + 1),) * (loops + 1)
        return (0.0,) * loops + (1.0,)

    @property
    def regularizers(self) -> dict[str, float]:
        """The load-balancing loss."""
        return {"balance_loss": self.config.balance_weight}

    @property
    def loops_allowed(self) -> int:
        """The most loops that can be requested."""
        return self.config.max_loops

    def checked_loops(self, loops: int | None) -> int:
        """``loops``, or those of training where it is None; UsageError outside the allowed range."""
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

    @no_autograph
    def call(self, features, loops: int | None = None, training=None, return_statistics=False):
        """Logits [B, loops + 1]; with ``return_statistics`` also [6 routers, loops + 1, 2, E]."""
        loops = self.checked_loops(loops)
        logits, statistics = self.depths(self.tokens(features), loops, training)
        return (logits, statistics) if return_statistics else logits

    def score(self, features, loops: int = 0, head: str | None = None) -> tf.Tensor:
        """Probability float32 [B] after ``loops`` loops, or of ``head``."""
        return super().score(features, head or f"loop_{self.checked_loops(loops)}")

    # The forward pass.

    def scores(self, features, training, heads: tuple[str, ...]) -> Scores:
        """As in the base; XLA compiles :meth:`depths` alone, without the sum over replicas."""
        return self.forward(self.tokens(features), training, heads)

    def forward(self, tokens: TokenGroups, training, heads: tuple[str, ...]) -> Scores:
        """Logits by depth; one head alone costs one Exit."""
        loops = [self.loops_of(head) for head in heads]
        # Where the only trained head is asked for, it may be evaluated, and that takes statistics.
        if len(loops) == 1 and heads != self.heads and not training:
            return Scores(self._one_depth(tokens, loops[0]))
        logits, statistics = self.depths(tokens, max(loops), training)
        if loops != list(range(len(loops))):
            logits = tf.gather(logits, loops, axis=1)
        return Scores(logits, {"balance_loss": balance_share(statistics)})

    def depths(self, tokens: TokenGroups, loops: int, training):
        """Logits [B, loops + 1] and statistics [6 routers, loops + 1, 2, E]."""
        run = self._compiled_depths if self.execution.xla and training else self._depths
        return run(tokens, loops, training)

    def _depths(self, tokens: TokenGroups, loops: int, training):
        state = self._encode(tokens, training)
        merged = merge_streams(state.sequence)[None], merge_streams(state.tokens)[None]
        counts = tf.zeros_like(state.statistics)[None]  # of the Loop Block, [depths, 2, 2, E]
        if loops:
            *later, loop_counts = run_loops(self, state, loops, training, every_depth=True)
            merged = (tf.concat(parts, axis=0) for parts in zip(merged, later, strict=True))
            counts = tf.concat([counts, loop_counts], axis=0)
        logits, exit_counts = self._exits(*merged, state, loops + 1, training)
        entry = tf.pad(state.statistics[None], [[0, loops], [0, 0], [0, 0], [0, 0]])
        statistics = tf.concat([entry, counts, exit_counts], axis=1)
        return logits, tf.transpose(statistics, [1, 0, 2, 3])

    def _one_depth(self, tokens: TokenGroups, loops: int) -> tf.Tensor:
        state = self._encode(tokens, training=False)
        sequence, candidates = state.sequence, state.tokens
        if loops:
            sequence, candidates = run_loops(self, state, loops, False, every_depth=False)
        inputs = [merge_streams(sequence), state.mask, merge_streams(candidates)]
        inputs += [] if state.extra is None else [state.extra]
        logits, _ = self.exit_block(inputs, training=False)
        return logits

    def _exits(self, sequences, tokens, state: EncodedRows, depths: int, training):
        """The Exit Block on all depths at once: a quarter of the operations of one call for each.

        Args:
          sequences: merged streams [depths, B, T, d].
          tokens: [depths, B, 1, G, d].
          state: has the mask and further inputs of the tower, the same at all depths.
          depths: how many.
          training: of Keras.

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

        if training and self.execution.recompute:
            exits = tf.recompute_grad(exits)
        logits, counts = exits(sequences, tokens)
        return tf.transpose(logits), counts

    def _encode(self, groups: TokenGroups, training) -> EncodedRows:
        """Rows as requests with one candidate each; ``tokens`` are all global ones."""
        side = self.user_side(groups)
        candidates = self.candidate_tokens([token[:, None] for token in groups.candidate])
        return self.entered(side, join_tokens(side.tokens, candidates), training)

    def user_side(self, groups: TokenGroups) -> UserSide:
        """A request's side, projected and compressed, before the Entry Block."""
        first = len(self.schema.request_features) + len(self.schema.candidate_features)
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

    def candidate_tokens(self, candidates: list[tf.Tensor]) -> Streams:
        """Item and cross groups [R, N, d_g], projected, before the Entry Block."""
        first = len(self.schema.request_features)
        projected = [
            self.projection.project(token, group)
            for group, token in enumerate(candidates, start=first)
        ]
        return self._replicate(tf.stack(projected, axis=-2))

    def entered(self, side: UserSide, tokens: Streams, training) -> EncodedRows:
        """``side`` and global ``tokens`` after the Entry Block."""
        (sequences, tokens), statistics = self.entry_block(
            (side.sequences, side.masks, tokens), training=training
        )
        streams = tuple(tf.concat(parts, axis=1) for parts in zip(*sequences, strict=True))
        return EncodedRows(streams, tf.concat(side.masks, axis=1), tokens, side.extra, statistics)

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
        # With an empty history the queries are masked out: nothing attends to them.
        mask = tf.repeat(group.lengths[:, None] > 0, self.config.num_queries, axis=1)
        return self.projection.project(tokens, index), mask

    def _replicate(self, tokens: tf.Tensor) -> Streams:
        return (tokens,) * self.config.streams


@keras.utils.register_keras_serializable("loopctr_tf")
class StackCTR(LoopCTR):
    """LoopCTR without weight sharing (section 4.1): L distinct Loop Blocks, the paper's comparison.

    Otherwise the same; it runs at 0 to ``config.loops`` loops. At each depth it takes as many operations
    as LoopCTR; its parameters are LoopCTR's and (L - 1) times those of a Loop Block.
    """

    shares_loop_block = False

    def _make_loop_blocks(self, arguments: dict) -> None:
        self.loop_blocks = [
            LoopBlock(**arguments, name=f"loop_block_{i}") for i in range(self.config.loops)
        ]

    def _loop_blocks(self) -> list[LoopBlock]:
        return list(self.loop_blocks)

    def loop_block_of(self, iteration: int) -> LoopBlock:
        """The Loop Block of that iteration."""
        return self.loop_blocks[iteration]

    @property
    def loops_allowed(self) -> int:
        """As many loops as there are blocks."""
        return self.config.loops


def _check_activation(name: str) -> None:
    try:
        keras.activations.get(name)
    except ValueError as error:
        raise UsageError(
            f"activation is {name!r}; give a name that Keras knows, e.g. 'gelu'"
        ) from error
