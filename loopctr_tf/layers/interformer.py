"""InterFormer: summaries between features and a sequence, and one layer that reads them both ways."""

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.layers.common import build, linear
from loopctr_tf.layers.counting import record_product
from loopctr_tf.layers.mlp import MLP
from loopctr_tf.layers.multi_head import MultiHeadAttention


@keras.utils.register_keras_serializable("loopctr_tf")
class MaskNet(keras.layers.Layer):
    """y = (h * MLP(h)) W + b with h = Norm(x): several sequences, joined in width, filtered into one.

    Args:
      units: width d of the output and of the MLP's hidden layer.

    Weights for an input of width w: 3 w d + 3 w + 2 d. Input: [..., w]. Output: [..., d].

    Source: Wang et al., MaskNet: Introducing Feature-Wise Multiplication to CTR Ranking Models by
    Instance-Guided Mask, as InterFormer merges sequences.

    >>> MaskNet(4)(tf.ones([2, 3, 8])).shape
    TensorShape([2, 3, 4])
    """

    def __init__(self, units: int, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        policy = {"dtype": self.dtype_policy}
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6, name="norm", **policy)
        self.compress = MLP((units,), name="compress", **policy)

    def build(self, input_shape):
        """Creates the norm, the mask's MLP and the compression."""
        width = input_shape[-1]
        self.mask = MLP((self.units, width), name="mask", dtype=self.dtype_policy)
        for layer in (self.norm, self.mask, self.compress):
            build(layer, input_shape)
        self.built = True

    def call(self, x):
        """Filters and compresses ``x`` [..., w]."""
        x = self.norm(x)
        return self.compress(x * self.mask(x))

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "units": self.units}


@keras.utils.register_keras_serializable("loopctr_tf")
class CrossArch(keras.layers.Layer):
    """Summaries of features X and of a sequence S, each gated by itself: Gate(z) = z * sigmoid(z G + g).

    X_sum = Gate(C X) with C [c, n]; S_sum = Gate([c CLS tokens; p pooled tokens; K most recent events]).
    The pooled tokens are attention from p learned queries to the events (PMA). Ours: X and S are
    normalised first, C is linear, and PMA has no feed-forward network.

    Args:
      cls_tokens: c, tokens of X_sum, and the first tokens of S.
      pma_tokens: p.
      recent_tokens: K. Where a history has fewer events, their tokens are zero and not visible.
      heads: of the pooling, a divisor of the width d.

    Weights for n features: 6 d^2 + (6 + p) d + n c. Input: x [B, n, d]; s [B, c + T, d], CLS tokens and
    then events, the most recent one first, finite at padding; mask bool [B, c + T].
    Output: (X_sum [B, c, d], S_sum [B, c + p + K, d], visible bool [B, c + p + K]).

    Source: Zeng et al., InterFormer, the Cross Arch; PMA is Lee et al.'s, Set Transformer, section 3.2.

    >>> mask = tf.sequence_mask([2 + 5, 2 + 1, 2 + 0], 2 + 5)
    >>> layer = CrossArch(cls_tokens=2, pma_tokens=1, recent_tokens=2, heads=2)
    >>> _, summary, visible = layer(tf.ones([3, 4, 8]), tf.ones([3, 7, 8]), mask)
    >>> visible.numpy().astype(int)
    array([[1, 1, 1, 1, 1],
           [1, 1, 1, 1, 0],
           [1, 1, 0, 0, 0]])
    """

    def __init__(self, cls_tokens: int, pma_tokens: int, recent_tokens: int, heads: int, **kwargs):
        super().__init__(**kwargs)
        self.cls_tokens, self.pma_tokens = cls_tokens, pma_tokens
        self.recent_tokens, self.heads = recent_tokens, heads
        policy = {"dtype": self.dtype_policy}
        norm = {"epsilon": 1e-6, **policy}
        self.feature_norm = keras.layers.LayerNormalization(name="feature_norm", **norm)
        self.sequence_norm = keras.layers.LayerNormalization(name="sequence_norm", **norm)
        self.pool = MultiHeadAttention(heads, name="pool", **policy)

    def build(self, input_shape):
        """Creates all weights for n features of width d."""
        features, width = input_shape[-2:]
        self.compress = self.add_weight(
            "compress", (features, self.cls_tokens), initializer="glorot_uniform"
        )
        self.queries = self.add_weight(
            "queries", (self.pma_tokens, width), initializer="glorot_uniform"
        )
        self.feature_gate, self.sequence_gate = (
            MLP((width,), name=name, dtype=self.dtype_policy)
            for name in ("feature_gate", "sequence_gate")
        )
        gates = self.feature_gate, self.sequence_gate
        for layer in (self.feature_norm, self.sequence_norm, self.pool, *gates):
            build(layer, tf.TensorShape([None, None, width]))
        self.built = True

    def call(self, x, s, mask):
        """Both summaries; see the class."""
        return self.features(x), *self.sequence(s, mask)

    def features(self, x):
        """X_sum [B, c, d] of features ``x`` [B, n, d]."""
        mixed = linear(tf.transpose(self.feature_norm(x), [0, 2, 1]), self.compress)  # [B, d, c]
        summary = tf.transpose(mixed, [0, 2, 1])
        return summary * tf.sigmoid(self.feature_gate(summary))

    def sequence(self, s, mask):
        """S_sum [B, c + p + K, d] of tokens ``s``, and which of its tokens are visible."""
        s = self.sequence_norm(s)
        cls, events = s[:, : self.cls_tokens], s[:, self.cls_tokens :]
        real, last = mask[:, self.cls_tokens :], self.recent_tokens
        queries = tf.tile(tf.cast(self.queries, s.dtype)[None], [tf.shape(s)[0], 1, 1])
        pooled = self.pool(queries, events, real)  # zero without events
        # Padded first, as the longest history of a batch may be shorter than K.
        recent = tf.pad(events, [[0, 0], [0, last], [0, 0]])[:, :last]
        recorded = tf.pad(real, [[0, 0], [0, last]])[:, :last]
        recent = tf.where(recorded[..., None], recent, tf.zeros_like(recent))
        summary = tf.concat([cls, pooled, recent], axis=1)
        some = tf.tile(tf.reduce_any(real, axis=1, keepdims=True), [1, self.pma_tokens])
        visible = tf.concat([mask[:, : self.cls_tokens], some, recorded], axis=1)
        return summary * tf.sigmoid(self.sequence_gate(summary)), visible

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "cls_tokens": self.cls_tokens,
            "pma_tokens": self.pma_tokens,
            "recent_tokens": self.recent_tokens,
            "heads": self.heads,
        }


@keras.utils.register_keras_serializable("loopctr_tf")
class InterFormerLayer(keras.layers.Layer):
    """Features that have read the sequence's summary, and a sequence that has read the features'.

    Interaction Arch: X' = X + MHA(Norm(X); [Norm(X); S_sum]), then X' + MLP(Norm(X')).
    Sequence Arch: S' = S + Norm(S) f(X_sum), then S' + MHA(Norm(S')). f is an MLP of the whole summary
    that gives a matrix [d, d], the personalised feed-forward network (PFFN).

    Ours: the interaction is self-attention, one of several modules that the paper allows; residuals and
    norms.

    Args:
      cls_tokens: c, tokens of X_sum.
      heads: of both attentions, a divisor of the width d.
      ffn_dim: m, hidden width of the MLP and of f.
      rotary: whether the sequence's attention turns queries and keys by their positions.
      dropout: rate behind each half in training.

    Weights: 9 d^2 + 9 d + m (d^2 + (2 + c) d + 2). Input: x [B, n, d]; s [B, T, d], finite at padding,
    and its mask bool [B, T]; x_sum [B, c, d]; s_sum [B, S, d] and which of its tokens are visible, bool
    [B, S]. Output: (x, s), of the same shapes.

    Source: Zeng et al., InterFormer, the Interaction Arch and the Sequence Arch.

    >>> x, s, mask = tf.ones([3, 4, 8]), tf.ones([3, 5, 8]), tf.sequence_mask([5, 2, 1], 5)
    >>> x, s = InterFormerLayer(2, 2, 6)(x, s, mask, x[:, :2], s[:, :2], mask[:, :2])
    >>> x.shape, s.shape
    (TensorShape([3, 4, 8]), TensorShape([3, 5, 8]))
    """

    def __init__(
        self,
        cls_tokens: int,
        heads: int,
        ffn_dim: int,
        rotary: bool = True,
        dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.cls_tokens, self.heads, self.ffn_dim = cls_tokens, heads, ffn_dim
        self.rotary, self.dropout = rotary, dropout
        policy = {"dtype": self.dtype_policy}
        self.interaction_norm, self.mlp_norm, self.personal_norm, self.attention_norm = (
            keras.layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm", **policy)
            for name in ("interaction", "mlp", "personal", "attention")
        )
        self.interaction = MultiHeadAttention(heads, name="interaction", **policy)
        self.attention = MultiHeadAttention(heads, rotary, name="attention", **policy)
        self.drop = keras.layers.Dropout(dropout, name="drop", **policy)

    def build(self, input_shape):
        """Creates all weights for features of width d."""
        width, policy = input_shape[-1], {"dtype": self.dtype_policy}
        self.mlp = MLP((self.ffn_dim, width), name="mlp", **policy)
        self.personal = MLP((self.ffn_dim, width**2), name="personal", **policy)
        norms = self.interaction_norm, self.mlp_norm, self.personal_norm, self.attention_norm
        for layer in (*norms, self.interaction, self.mlp, self.attention):
            build(layer, tf.TensorShape([None, None, width]))
        build(self.personal, tf.TensorShape([None, self.cls_tokens * width]))
        self.built = True

    def call(self, x, s, mask, x_sum, s_sum, visible, training=None):
        """The next X and S; see the class."""
        s, x_sum, s_sum = (tf.cast(value, x.dtype) for value in (s, x_sum, s_sum))
        width = x.shape[-1]
        normed = self.interaction_norm(x)
        every = tf.concat([normed, s_sum], axis=1)
        seen = tf.concat([tf.ones_like(x[..., 0], tf.bool), visible], axis=1)
        x += self.drop(self.interaction(normed, every, seen), training=training)
        x += self.drop(self.mlp(self.mlp_norm(x)), training=training)

        matrix = self.personal(tf.reshape(x_sum, [-1, self.cls_tokens * width]))
        matrix = tf.reshape(matrix, [-1, width, width])
        record_product(s.shape, width)
        s += self.drop(tf.matmul(self.personal_norm(s), matrix), training=training)
        normed = self.attention_norm(s)
        return x, s + self.drop(self.attention(normed, normed, mask), training=training)

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "cls_tokens": self.cls_tokens,
            "heads": self.heads,
            "ffn_dim": self.ffn_dim,
            "rotary": self.rotary,
            "dropout": self.dropout,
        }
