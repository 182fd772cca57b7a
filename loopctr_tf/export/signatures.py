"""The signatures of an export: each a traced function on raw features, named as operators call it.

| signature | inputs | outputs |
|---|---|---|
| `serving_default`, `loop_0` ... `loop_I` | every feature, [B, ...] | `probability` [B] |
| `all_depths` | the same | `probability` [B, I + 1] |
| `classify`, `regress` | `inputs`: tf.Example [B] | `classes`, `scores` [B, 2]; `outputs` [B] |
| `rank_loop_0` ... `rank_loop_I` | user and context [R, ...], item and cross [R, N, ...] | \
`probability` [R, N] |
| `cascade` | the same and `refine_top_k` int32 [R] | `probability`, `depth` int32 [R, N] |
| `encode_user_loop_i` | user and context features [R, ...] | `state_*`, see :data:`STATE` |
| `rank_cached_loop_i` | `state_*`, item and cross features [R, N, ...] | `probability` [R, N] |
"""

import functools
import hashlib
from collections.abc import Callable

import tensorflow as tf

from loopctr_tf.errors import UsageError
from loopctr_tf.export.validity import (
    aligned,
    checked_state_version,
    refine_counts,
    same_tokens,
    validated,
)
from loopctr_tf.features.dataset import parse_examples
from loopctr_tf.models.loopctr import ranking

ConcreteFunction = tf.types.experimental.ConcreteFunction
Makers = dict[str, Callable[[], ConcreteFunction]]

CLASSES = ("0", "1")
STATE = tuple(f"state_{name}" for name in ranking.UserCache._fields)
"""Tensors of a user's state, beside ``state_version`` (string [R]), which says whose state it is.

Their sizes are the same for every user, however long the history: with T tokens of all full histories
(``max_length`` events each, ``num_queries`` where compressed), width d, n streams, G_u user and context
features and a tower of first width h, a state at depth i takes T bytes for the mask and
2 (i + 1) T d + n G_u d + h numbers (G_u counts only at depths 1 and more), of 4 or 2 bytes each.
"""


def signature_makers(
    model, loops: int, bad_input: str = "reject", state_dtype: str = "float32"
) -> Makers:
    """Signature name -> a call that traces it, for depths 0..``loops``.

    Raises:
      UsageError: for a ``state_dtype`` other than float32 and float16.
    """
    if state_dtype not in ("float32", "float16"):
        raise UsageError(f"state_dtype is {state_dtype!r}; choose float32 or float16")
    return {
        **_pointwise(model, loops, bad_input),
        **_examples(model, bad_input),
        **_ranking(model, loops, bad_input),
        **_cached(model, loops, bad_input, tf.as_dtype(state_dtype)),
    }


def _pointwise(model, loops, bad_input) -> Makers:
    specs = {**_user_specs(model.schema), **_candidate_specs(model.schema, rank=False)}

    def maker(score):
        def serve(**features):
            return {"probability": score(validated(features, model.schema, bad_input))}

        # serving_default and loop_0 are one function.
        return functools.cache(functools.partial(_trace, serve, specs))

    def all_depths(features):
        logits = model(features, loops=loops, training=False)
        return tf.sigmoid(tf.cast(logits, tf.float32))

    depths = [maker(functools.partial(model.score, loops=depth)) for depth in range(loops + 1)]
    return {
        "serving_default": depths[0],
        **{f"loop_{depth}": make for depth, make in enumerate(depths)},
        "all_depths": maker(all_depths),
    }


def _examples(model, bad_input) -> Makers:
    def maker(outputs):
        def serve(inputs):
            features = parse_examples(inputs, model.schema, repair=bad_input == "repair")
            features = validated(features, model.schema, bad_input)
            return outputs(model.score(features))

        return functools.partial(
            _trace, serve, {"inputs": tf.TensorSpec([None], tf.string, "inputs")}
        )

    def as_classes(probability):
        classes = tf.tile(tf.constant([CLASSES]), tf.stack([tf.size(probability), 1]))
        return {"classes": classes, "scores": tf.stack([1 - probability, probability], axis=1)}

    return {
        "classify": maker(as_classes),
        "regress": maker(lambda probability: {"outputs": probability}),
    }


def _ranking(model, loops, bad_input) -> Makers:
    schema = model.schema
    user_specs, candidate_specs = _user_specs(schema), _candidate_specs(schema)

    def sides(features):
        features = validated(features, schema, bad_input)
        return (
            {name: features[name] for name in user_specs},
            {name: features[name] for name in candidate_specs},
        )

    def maker(depth):
        def serve(**features):
            user, candidates = sides(features)
            cache = ranking.encode_user(model, user, depth)
            return {"probability": ranking.rank(model, cache, candidates, depth)}

        return functools.partial(_trace, serve, {**user_specs, **candidate_specs})

    def cascade(**inputs):
        inputs = aligned(inputs, schema)
        wanted = refine_counts(inputs.pop("refine_top_k"), bad_input)
        user, candidates = sides(inputs)
        probability, depth = ranking.cascade(model, user, candidates, wanted, loops)
        return {"probability": probability, "depth": depth}

    top_k = {"refine_top_k": tf.TensorSpec([None], tf.int32, "refine_top_k")}
    makers = {f"rank_loop_{depth}": maker(depth) for depth in range(loops + 1)}
    if loops:
        makers["cascade"] = functools.partial(
            _trace, cascade, {**user_specs, **candidate_specs, **top_k}
        )
    return makers


def _cached(model, loops, bad_input, dtype) -> Makers:
    schema = model.schema
    user_specs, candidate_specs = _user_specs(schema), _candidate_specs(schema)
    digest = functools.cache(lambda: weights_digest(model))  # reads every weight: when needed

    def makers(depth):
        def version():
            return f"{digest()}/{depth}"

        def encode(**features):
            cache = ranking.encode_user(model, validated(features, schema, bad_input), depth)
            cache = ranking.padded(cache, model.sequence_tokens)
            state = {
                name: value if value.dtype == tf.bool else tf.cast(value, dtype)
                for name, value in zip(STATE, cache, strict=True)
            }
            rows = tf.shape(cache.mask)[0]
            return {**state, "state_version": tf.fill([rows], version())}

        def rank(**tensors):
            tensors = aligned(tensors, schema)
            with tf.control_dependencies(
                [
                    checked_state_version(tensors["state_version"], version()),
                    same_tokens(model.sequence_tokens, *(tensors[name] for name in STATE[:3])),
                ]
            ):
                dtypes = ranking.cache_dtypes(model)
                cache = ranking.UserCache(
                    *(
                        tf.cast(tf.identity(tensors[name]), dtype)
                        for name, dtype in zip(STATE, dtypes, strict=True)
                    )
                )
                candidates = {name: tensors[name] for name in candidate_specs}
                candidates = validated(candidates, schema, bad_input)
                return {"probability": ranking.rank(model, cache, candidates, depth)}

        return {
            f"encode_user_loop_{depth}": functools.partial(_trace, encode, user_specs),
            f"rank_cached_loop_{depth}": functools.partial(
                _trace, rank, {**_state_specs(model, depth, dtype), **candidate_specs}
            ),
        }

    return {name: make for depth in range(loops + 1) for name, make in makers(depth).items()}


def weights_digest(model) -> str:
    """Sixteen hexadecimal digits that change with any weight or setting of ``model``."""
    digest = hashlib.sha256(repr((model.config, model.schema)).encode())
    with tf.init_scope():  # called while a signature is traced
        for variable in sorted(model.weights, key=lambda variable: variable.name):
            digest.update(variable.numpy().tobytes())
    return digest.hexdigest()[:16]


def _user_specs(schema) -> dict[str, tf.TensorSpec]:
    return {
        name: tf.TensorSpec(spec.shape, tf.as_dtype(spec.dtype), name)
        for name, spec in schema.input_specs().items()
        if not spec.candidate
    }


def _candidate_specs(schema, rank: bool = True) -> dict[str, tf.TensorSpec]:
    return {
        name: tf.TensorSpec(
            (None, *spec.shape) if rank else spec.shape, tf.as_dtype(spec.dtype), name
        )
        for name, spec in schema.input_specs().items()
        if spec.candidate
    }


def _state_specs(model, depth, dtype) -> dict[str, tf.TensorSpec]:
    config = model.config
    tokens = model.sequence_tokens
    user_tokens = len(model.schema.request_features) if depth else 0
    shapes = ranking.UserCache(
        mask=(None, tokens),
        keys=(None, depth + 1, tokens, config.dim),
        values=(None, depth + 1, tokens, config.dim),
        tokens=(None, config.streams, user_tokens, config.dim),
        tower=(None, model.exit_block.tower_width),
    )
    specs = {
        name: tf.TensorSpec(shape, tf.bool if name == "state_mask" else dtype, name)
        for name, shape in zip(STATE, shapes, strict=True)
    }
    return {**specs, "state_version": tf.TensorSpec([None], tf.string, "state_version")}


def _trace(function, specs) -> ConcreteFunction:
    return tf.function(function, autograph=False).get_concrete_function(**specs)
