"""Adam and row-wise Adagrad of an embedding table, row by row, in float64, with decay at every step."""

import math

import numpy as np

EPSILON = 1e-7


class AdamRow:
    """One row's moments."""

    def __init__(self):
        self.m = self.v = 0.0

    def change(self, gradient, rate, step):
        """What the row loses at ``step`` (from 1)."""
        self.m = 0.9 * self.m + 0.1 * gradient
        self.v = 0.999 * self.v + 0.001 * gradient**2
        unbiased = math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        return rate * unbiased * self.m / (np.sqrt(self.v) + EPSILON)


class AdagradRow:
    """One row's mean squares, summed over steps."""

    def __init__(self):
        self.total = 0.0

    def change(self, gradient, rate, step):
        """What the row loses."""
        self.total += sum(g * g for g in gradient) / len(gradient)
        return rate * gradient / (math.sqrt(self.total) + EPSILON)


def train_rows(kind, table, steps, rates, decay=0.0):
    """The rows of ``table`` after ``steps``, of each (rows named, a gradient for each naming).

    Args:
      kind: ``AdamRow`` or ``AdagradRow``.
      table: [rows, dim].
      steps: a row that is named twice gets the sum; one that is not named only decays.
      rates: learning rate of each step.
      decay: every row is multiplied by 1 - rate * decay at every step.
    """
    rows = [np.array(row, np.float64) for row in table]
    states = [kind() for _ in rows]
    for step, ((named, gradients), rate) in enumerate(zip(steps, rates, strict=True), start=1):
        for number, state in enumerate(states):
            rows[number] *= 1 - rate * decay
            own = [np.float64(g) for n, g in zip(named, gradients, strict=True) if n == number]
            if own:
                rows[number] -= state.change(sum(own), rate, step)
    return np.array(rows)
