"""Functions of one token that every reference is written with."""

import math

import numpy as np

EPSILON = 1e-6


def rms_norm(token, gain=None):
    """x / sqrt(mean of x_i^2 + epsilon), times the gain where there is one."""
    mean_square = sum(value * value for value in token) / len(token)
    normed = token / math.sqrt(mean_square + EPSILON)
    return normed if gain is None else normed * gain


def gelu(x):
    """x Phi(x), with the exact normal distribution function."""
    return np.array([v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x])


def softmax(logits):
    """exp(l_i) / sum_j exp(l_j)."""
    shares = [math.exp(logit - max(logits)) for logit in logits]
    return np.array([share / sum(shares) for share in shares])


def under(weights, folder):
    """The weights below a folder of paths: "attention/query" becomes "query"."""
    return {
        path.removeprefix(folder + "/"): value
        for path, value in weights.items()
        if path.startswith(folder + "/")
    }


def unsaid(shape):
    """An array of NaN: where a reference leaves it so, the output has no meaning and is not compared."""
    return np.full(shape, np.nan)
