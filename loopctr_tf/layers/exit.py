"""The Exit Block: global tokens attend to the sequences once more; a tower makes them a logit."""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.activations import faster_form
from loopctr_tf.layers.attention import KeysValues
from loopctr_tf.layers.block import MixtureBlock
from loopctr_tf.layers.common import RMSNorm, build, flat, linear, reshape_last, stable_dtype


@keras.utils.register_keras_serializable("loopctr_tf")
class ExitBlock(MixtureBlock):
    """logit = MLP([CrossAttn(globals, sequences)]), with a feed-forward network between (eq. 5).

    Plain pre-norm residuals surround cross-attention and feed-forward. Each global is normalised with
    its own gain, all are concatenated, and the tower gives one logit. A global token attends only to
    sequences, so that the result for a user's token does not depend on the candidate.

    Args:
      tower_units: hidden widths of the tower.
      global_norm: RMSNorm on each global before the tower (ours).
      heads, ffn_dim, experts, active_experts, kwargs: see
        :class:`~loopctr_tf.layers.block.MixtureBlock`.

    Input: (sequence, mask, globals): [R, T, d], [R, T], [R, N, G, d], and optionally ``extra``
    [R, 1, e], further inputs of the tower that are the same for all candidates. With ``depths``,
    R covers that many depths, concatenated.
    Output: (logits [R, N], statistics [2 routers, 2, E], or [depths, 2 routers, 2, E]).

    >>> block = ExitBlock(heads=2, ffn_dim=16, tower_units=[4])
    >>> history, mask = tf.ones([3, 5, 8]), tf.ones([3, 5], tf.bool)
    >>> logits, counts = block((history, mask, tf.ones([3, 7, 2, 8])))  # 7 candidates a request
    >>> logits.shape, counts.shape
    (TensorShape([3, 7]), TensorShape([2, 2, 4]))
    """

    def __init__(
        self,
        heads: int,
        ffn_dim: int,
        experts: int = 4,
        active_experts: int = 2,
        tower_units: Sequence[int] = (128, 64),
        global_norm: bool = True,
        **kwargs,
    ):
        super().__init__(heads, ffn_dim, experts, active_experts, **kwargs)
        self.tower_units, self.use_global_norm = tuple(tower_units), global_norm
        policy = {"dtype": self.dtype_policy}
        self.query_norm = RMSNorm(name="query_norm", **policy)
        self.context_norm = RMSNorm(name="context_norm", **policy)
        self.attention = self._make_attention()
        self.ffn_norm = RMSNorm(name="ffn_norm", **policy)
        self.ffn = self._make_ffn()
        self.global_norm = RMSNorm(axes=2, name="global_norm", **policy) if global_norm else None
        # These only hold weights; `finish` chooses the type that they compute in.
        dtype = self.variable_dtype
        self.tower = [
            keras.layers.Dense(units, name=f"tower_{i}", dtype=dtype)
            for i, units in enumerate(self.tower_units)
        ]
        self.head = keras.layers.Dense(1, name="head", dtype=dtype)

    def build(self, input_shape):
        """Creates all weights; ``input_shape`` is (sequence, mask, globals[, extra])."""
        tokens, width = input_shape[2][-2:]
        for child in (
            self.query_norm,
            self.context_norm,
            self.attention,
            self.ffn_norm,
            self.ffn,
        ):
            build(child, tf.TensorShape([None, None, width]))
        if self.global_norm is not None:
            build(self.global_norm, tf.TensorShape([None, None, tokens, width]))
        units = tokens * width + (input_shape[3][-1] if len(input_shape) > 3 else 0)
        for dense in (*self.tower, self.head):
            build(dense, tf.TensorShape([None, units]))
            units = dense.units
        self.built = True

    def call(self, inputs, training: bool | None = None, depths: int | None = None):
        """Scores (sequence, mask, globals[, extra])."""
        sequence, mask, global_tokens, *extra = inputs
        keys, values, counts = self.keys_values(sequence, mask, depths)
        visible = self.attention.keys_values_by_head(keys, values, sequence, mask)
        tokens, more = self.attend(global_tokens, visible, training, depths)
        return self.score(tokens, *extra, training=training), counts + more

    def keys_values(self, sequence: tf.Tensor, mask: tf.Tensor, depths: int | None = None):
        """Keys and values [R T, d] of sequence tokens [R, T, d], and statistics [2, 2, E]."""
        x = self.context_norm(flat(sequence))
        gates, counts = self.attention.route(x, mask, depths)
        counts = tf.stack([counts, tf.zeros_like(counts)], axis=-3)
        return self.attention.project_keys(x), self.attention.value(x, gates), counts

    def attend(
        self,
        tokens: tf.Tensor,
        keys_values: KeysValues,
        training: bool | None = None,
        depths: int | None = None,
    ):
        """Global tokens [R, N, G, d] after attention and feed-forward, and statistics [2, 2, E]."""
        rows = flat(tokens)
        x = self.query_norm(rows)
        gates, counts = self.attention.route(x, depths=depths)
        output = self.attention.out(self.attention.attend(x, tokens, keys_values), gates)
        rows += self.drop(output, training=training)
        output, ffn_counts = self.ffn(self.ffn_norm(rows), depths=depths)
        rows += self.drop(output, training=training)
        return reshape_last(rows, tokens, rows.shape[-1]), tf.stack([counts, ffn_counts], axis=-3)

    def score(self, tokens: tf.Tensor, extra: tf.Tensor | None = None, training=None) -> tf.Tensor:
        """Logits [R, N] of tokens [R, N, G, d] from :meth:`attend`."""
        x = self.tower_input(tokens)
        if extra is not None:
            x += self.extra_input(extra)
        return self.finish(x, training)

    def tower_input(self, tokens: tf.Tensor, first: int = 0) -> tf.Tensor:
        """Contribution [R, N, h] of tokens [R, N, G', d] to the tower's first layer.

        The first layer is linear in the concatenated tokens, so that the user's share can be computed
        separately, once. ``first`` is the index of the first of these tokens among all G.
        """
        count, width = tokens.shape[-2:]
        if self.global_norm is not None:
            tokens = self.global_norm.part(tokens, first)
        shape = tf.shape(tokens)
        x = tf.reshape(tokens, [shape[0], shape[1], count * width])
        return self._enter(x, self._first.kernel[first * width : (first + count) * width])

    def extra_input(self, extra: tf.Tensor) -> tf.Tensor:
        """Contribution [R, 1, h] of further inputs [R, 1, e] to the tower's first layer."""
        return self._enter(extra, self._first.kernel[-extra.shape[-1] :])

    def finish(self, x: tf.Tensor, training=None) -> tf.Tensor:
        """Logits [R, N] of the sum [R, N, h] of all inputs of the tower's first layer."""
        rows = _biased(flat(x), self._first.bias)
        for dense in (*self.tower, self.head)[1:]:
            rows = self.drop(faster_form(self.activation)(rows), training=training)
            dtype = self.variable_dtype if dense is self.head else self.compute_dtype
            rows = _biased(linear(tf.cast(rows, dtype), dense.kernel), dense.bias)
        return tf.reshape(rows, tf.shape(x)[:2])

    @property
    def tower_width(self) -> int:
        """h, the width of the tower's first layer."""
        return self._first.units

    @property
    def tower_dtype(self) -> str:
        """Type of the tower's first sums; the weights' own if those sums are already the logits.

        Half-precision logits would tie: above 2, bfloat16 has steps of a hundredth.
        """
        return self.compute_dtype if self.tower else self.variable_dtype

    def _enter(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return linear(tf.cast(x, self.tower_dtype), kernel)

    @property
    def _first(self) -> keras.layers.Dense:
        return self.tower[0] if self.tower else self.head

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "tower_units": list(self.tower_units),
            "global_norm": self.use_global_norm,
        }


def _biased(rows: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """rows + b [rows, u], at least in float32: the bias's gradient loses precision in bfloat16."""
    rows = tf.cast(rows, stable_dtype(rows.dtype))
    return tf.nn.bias_add(rows, tf.cast(bias, rows.dtype))
