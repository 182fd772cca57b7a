"""LoopCTR as its equations stand, in no hurry: the yardstick that the library's speed is held to.

Every expert sees every token, the masks are arrays, all tokens stand in one row (the sequence, then the
globals) and attend in one masked product, the streams are one array that einsum mixes, the loops follow
one another in the graph, and the Exit Block is called once a depth.
"""

import tensorflow as tf
import tf_keras as keras

from loopctr_tf.models.encoder import standardize


def rms_norm(x, gain=1.0):
    """x / RMS(x) * gain over the last axis."""
    return x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), axis=-1, keepdims=True) + 1e-6) * gain


def masks(real, length):
    """Who sees whom: [B, N, 1 + N] in Entry and Loop, [B, 1, 1 + N] in the Exit; the sink comes first.

    In the Entry the sequence sees itself, a global itself alone; in the Loop a sequence token sees the
    sequence, a global everything; in the Exit a global sees the sequence. ``real`` [B, N] is False at
    padding; the first ``length`` tokens are the sequence.
    """
    column = tf.range(tf.shape(real)[1]) < length
    row = column[:, None]
    within = (row & column) | tf.eye(tf.size(column), dtype=tf.bool)
    entry = tf.concat([row, within], axis=1)
    loop = tf.concat([tf.ones_like(row), column | ~row], axis=1)
    exit_block = tf.pad(column[None], [[0, 0], [1, 0]], constant_values=True)
    real = tf.pad(real, [[0, 0], [1, 0]], constant_values=True)[:, None]
    return [mask & real for mask in (entry, loop, exit_block)]


class PlainLoopCTR(keras.Model):
    """Logits [B, L + 1] and the balance loss, from what :meth:`lookup` gives.

    Args:
      model: a ``loopctr_tf.LoopCTR`` of :func:`loopctr_tf.bench.workload.workload_schema` without long
        histories, whose settings and weights this one takes over. ``self.w`` holds them by their path.
    """

    def __init__(self, model):
        super().__init__(name="plain")
        self.schema, self.config = model.schema, model.config
        self.w = {
            path: tf.Variable(weight, trainable=weight.trainable, name=path)
            for path, weight in _by_path(model).items()
        }

    def take_weights(self, model):
        """Sets all weights to those of ``model``."""
        for path, weight in _by_path(model).items():
            self.w[path].assign(weight)

    def lookup(self, features):
        """Row numbers for strings; everything else as it is."""
        rows = dict(features)
        (sequence,) = self.schema.sequences
        for feature in (*self.schema.features, *sequence.fields):
            if feature.table is not None:
                buckets = self.schema.table(feature.table).hash_buckets
                strings = features[feature.name]
                rows[feature.name] = tf.strings.to_hash_bucket_fast(strings, buckets)
        return rows

    def call(self, rows):
        """Entry, L loops, and an Exit after each of them."""
        tokens, real, length = self.tokens(rows)
        streams = tf.repeat(tokens[:, :, None], self.config.streams, axis=2)  # [B, N, n, d]
        balance = {}  # by router, of each of its calls
        entry, loop, seen = masks(real, length)
        streams = self.block("entry_block", streams, entry, real, balance)
        logits = [self.exit_block(streams, seen, real, length, balance)]
        for _ in range(self.config.loops):
            streams = self.block("loop_block", streams, loop, real, balance)
            logits.append(self.exit_block(streams, seen, real, length, balance))
        of_routers = [tf.reduce_mean(losses) for losses in balance.values()]
        return tf.stack(logits, axis=1), tf.reduce_mean(of_routers)

    def loss(self, labels, logits, balance):
        """mean over depths of BCE + lambda L_bal (eq. 10 and 14)."""
        labels = tf.broadcast_to(labels[:, None], tf.shape(logits))
        bce = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
        return tf.reduce_mean(bce) + self.config.balance_weight * balance

    def tokens(self, rows):
        """Projected tokens [B, N, d], which of them are real [B, N], and the length of the sequence."""
        (sequence,) = self.schema.sequences
        features = (*self.schema.request_features, *self.schema.candidate_features)
        groups = [self.embedded(feature, rows)[:, None] for feature in features]
        groups.append(tf.concat([self.embedded(f, rows) for f in sequence.fields], axis=-1))
        *globals_, history = [
            group @ self.w[f"projection/kernel_{i}"] + self.w[f"projection/bias_{i}"]
            for i, group in enumerate(groups)
        ]
        length, lengths = tf.shape(history)[1], rows[sequence.length_name]
        age = tf.clip_by_value(lengths[:, None] - 1 - tf.range(length), 0, sequence.max_length - 1)
        history += tf.gather(self.w[f"{sequence.name}_recency/vectors"], age)
        tokens = tf.concat([history, *globals_], axis=1)
        always = tf.ones([tf.shape(tokens)[0], len(globals_)], tf.bool)
        real = tf.concat([tf.sequence_mask(lengths, length), always], axis=1)
        return tokens, real, length

    def embedded(self, feature, rows):
        """[..., width] of a feature."""
        if feature.table is None:
            return standardize(feature, rows[feature.name])[..., None]
        table = self.w[f"encoder/{feature.table}_embedding/embeddings"]
        return tf.gather(table, rows[feature.name])

    def block(self, at, streams, mask, real, balance):
        """A pre-norm Transformer block on streams [B, N, n, d]; mask [B, N, 1 + N], the sink first."""
        x, after = self.residual(f"{at}/attention_hcr", streams)
        x = rms_norm(x, self.w[f"{at}/attention_norm/gain"])
        streams = after(self.attention(f"{at}/attention", x, mask, real, balance))
        x, after = self.residual(f"{at}/ffn_hcr", streams)
        x = rms_norm(x, self.w[f"{at}/ffn_norm/gain"])
        return after(self.feed_forward(f"{at}/ffn", x, real, balance))

    def exit_block(self, streams, mask, real, length, balance):
        """Logits [B] of the globals, which read the sequence once more (eq. 5)."""
        at, merged = "exit_block", tf.reduce_mean(streams, axis=2)
        sequence, tokens = merged[:, :length], merged[:, length:]
        context = rms_norm(sequence, self.w[f"{at}/context_norm/gain"])
        query = rms_norm(tokens, self.w[f"{at}/query_norm/gain"])
        x = tf.concat([context, query], axis=1)
        tokens += self.attention(f"{at}/attention", x, mask, real, balance, first=length)
        x = rms_norm(tokens, self.w[f"{at}/ffn_norm/gain"])
        tokens += self.feed_forward(f"{at}/ffn", x, real[:, length:], balance)
        tokens = rms_norm(tokens, self.w[f"{at}/global_norm/gain"])
        x = tf.reshape(tokens, [-1, len(self.schema.features) * self.config.dim])
        for i in range(len(self.config.tower_units)):
            x = x @ self.w[f"{at}/tower_{i}/kernel"] + self.w[f"{at}/tower_{i}/bias"]
            x = keras.activations.gelu(x)
        return (x @ self.w[f"{at}/head/kernel"] + self.w[f"{at}/head/bias"])[:, 0]

    def residual(self, at, streams):
        """What a sub-layer reads, [B, N, d], and how its output goes back (eq. 6-8)."""
        w = {name: self.w.get(f"{at}/{name}") for name in ("read", "mix", "write")}
        if w["read"] is None:  # one stream
            return streams[:, :, 0], lambda output: streams + output[:, :, None]
        normed = rms_norm(streams)

        def dynamic(name, scale):
            kernel = self.w[f"{at}/{name}_kernel"]
            return self.w[f"{at}/{scale}"] * tf.tanh(tf.einsum("btnd,dm->btnm", normed, kernel))

        read = w["read"] + dynamic("read", "read_scale")[..., 0]  # [B, N, n]
        mix = w["mix"] + dynamic("mix", "read_scale")  # [B, N, n, n]
        write = w["write"] + dynamic("write", "write_scale")[..., 0]

        def after(output):
            mixed = tf.einsum("btnm,btnd->btmd", mix, streams)
            return mixed + tf.einsum("btm,btd->btmd", write, output)

        return tf.einsum("btn,btnd->btd", read, streams), after

    def attention(self, at, x, mask, real, balance, first=0):
        """Tokens from the place ``first`` on attend to x [B, N, d]; mask [B, Q or 1, 1 + N]."""
        heads = self.config.heads
        gates = self.route(f"{at}/router", x, real, balance)

        def by_head(x):
            return tf.reshape(x, [tf.shape(x)[0], -1, heads, x.shape[-1] // heads])

        q, k = by_head(x[:, first:] @ self.w[f"{at}/query"]), by_head(x @ self.w[f"{at}/key"])
        values = tf.einsum("btd,edf->btef", x, self.w[f"{at}/value/kernel"])
        v = by_head(tf.einsum("btef,bte->btf", values, gates))
        logits = tf.einsum("bqhc,bkhc->bhqk", q, k) * q.shape[-1] ** -0.5
        sink = tf.broadcast_to(self.w[f"{at}/sink"][:, None, None], tf.shape(logits[..., :1]))
        logits = tf.concat([sink, logits], axis=-1)
        weights = tf.nn.softmax(tf.where(mask[:, None], logits, -1e30))[..., 1:]
        read = tf.einsum("bhqk,bkhc->bqhc", weights, v)
        read = tf.reshape(read, tf.shape(x[:, first:]))
        outputs = tf.einsum("btd,edf->btef", read, self.w[f"{at}/output/kernel"])
        return tf.einsum("btef,bte->btf", outputs, gates[:, first:])

    def feed_forward(self, at, x, real, balance):
        """sum_e g_e gelu(x U_e) V_e, over all E experts."""
        gates = self.route(f"{at}/router", x, real, balance)
        hidden = keras.activations.gelu(tf.einsum("btd,edf->btef", x, self.w[f"{at}/inner"]))
        outputs = tf.einsum("btef,efd->bted", hidden, self.w[f"{at}/outer"])
        return tf.einsum("bted,bte->btd", outputs, gates)

    def route(self, at, x, real, balance):
        """Gates [B, N, E] of all experts, zero for those not chosen; notes the loss (eq. 11-13)."""
        active, experts = self.config.active_experts, self.config.experts
        probabilities = tf.nn.softmax(x @ self.w[f"{at}/kernel"])
        chosen = tf.math.top_k(probabilities, active).indices
        chosen = tf.reduce_sum(tf.one_hot(chosen, experts), axis=2)
        counts = tf.cast(real, tf.float32)[..., None]
        tokens = tf.reduce_sum(counts)
        share = tf.reduce_sum(chosen * counts, axis=[0, 1]) / (tokens * active)
        mean = tf.reduce_sum(probabilities * counts, axis=[0, 1]) / tokens
        balance.setdefault(at, []).append(experts * tf.reduce_sum(share * mean))
        kept = probabilities * chosen
        return kept / tf.reduce_sum(kept, axis=-1, keepdims=True)


def _by_path(model):
    """A model's weights by their path, without its own name."""
    return {weight.name.split("/", 1)[1].split(":")[0]: weight for weight in model.weights}
