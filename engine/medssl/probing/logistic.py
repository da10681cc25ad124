"""Multinomial logistic regression with an L2 penalty: the maths of the linear probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LogisticModel:
    """Weights on standardised inputs.

    Args:
        weight: (C, D).
        bias: (C,).
        mean: (D,) subtracted from the inputs.
        scale: (D,) they are divided by.
    """

    weight: Floats
    bias: Floats
    mean: Floats
    scale: Floats

    def folded(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(weight, bias) that take raw inputs: standardisation folded in, float32."""
        weight = self.weight / self.scale
        bias = self.bias - weight @ self.mean
        return weight.astype(np.float32), bias.astype(np.float32)

    def probabilities(self, samples: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """(N, D) raw inputs -> (N, C)."""
        weight, bias = self.folded()
        logits = np.asarray(samples, np.float32) @ weight.T + bias
        logits -= logits.max(1, keepdims=True)
        np.exp(logits, out=logits)
        result: NDArray[np.float32] = logits / logits.sum(1, keepdims=True)
        return result


def fit_logistic(
    samples: NDArray[np.floating[Any]],
    target: NDArray[np.integer[Any]],
    classes: int,
    inverse_strength: float,
    *,
    start: LogisticModel | None = None,
    emphasis: NDArray[np.float64] | None = None,
) -> LogisticModel:
    """Fit with standardised inputs and balanced classes by L-BFGS.

    Args:
        samples: (N, D).
        target: (N,) in 0 .. classes - 1, every class present.
        classes: number C of classes.
        inverse_strength: C of scikit-learn's LogisticRegression, whose objective with
            ``class_weight="balanced"`` this is; biases are not penalised.
        start: begin at its weights instead of zero.
        emphasis: (D,) factors on the standardised inputs: the penalty on those with more is weaker.
    """
    mean = samples.mean(0, dtype=np.float64)
    scale = samples.std(0, dtype=np.float64)
    scale[scale < 1e-6] = 1.0  # a constant input says nothing and must not be blown up
    if emphasis is not None:
        scale /= emphasis
    # float32 halves the time of the products that dominate; sums are float64
    x = ((samples - mean) / scale).astype(np.float32)
    counts = np.bincount(target, minlength=classes)
    weights = (len(target) / (classes * counts))[target]
    onehot = np.zeros((len(target), classes), np.float32)
    onehot[np.arange(len(target)), target] = 1
    depth = x.shape[1]
    first = np.zeros((classes, depth + 1))
    if start is not None and start.weight.shape == (classes, depth):
        first[:, :-1] = start.weight / start.scale * scale
        first[:, -1] = start.bias + (start.weight / start.scale) @ (mean - start.mean)

    def objective(flat: Floats) -> tuple[float, Floats]:
        value, gradient = logistic_loss(flat.reshape(classes, -1), x, onehot, weights, inverse_strength)
        return value, gradient.ravel()

    found = minimize(
        objective,
        first.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 200, "ftol": 1e-7, "gtol": 1e-5},
    )
    solution = found.x.reshape(classes, -1)
    return LogisticModel(solution[:, :-1], solution[:, -1], mean, scale)


def logistic_loss(
    parameters: Floats,
    x: NDArray[np.float32],
    onehot: NDArray[np.float32],
    weights: Floats,
    inverse_strength: float,
) -> tuple[float, Floats]:
    """Weighted mean cross-entropy plus penalty, and its gradient.

    ``(sum_i w_i CE_i + |W|^2 / (2 C)) / sum_i w_i``, which has the minimum of scikit-learn's objective.

    Args:
        parameters: (C, D + 1), the last column the biases.
        x: (N, D) standardised inputs.
        onehot: (N, C) targets.
        weights: (N,) sample weights.
        inverse_strength: C of the penalty.

    Returns:
        The loss and its gradient (C, D + 1).
    """
    total = weights.sum()
    logits = x @ parameters[:, :-1].T.astype(np.float32) + parameters[:, -1].astype(np.float32)
    logits -= logits.max(1, keepdims=True)
    log_sum = np.log(np.exp(logits).sum(1, keepdims=True))
    log_p = logits - log_sum
    loss = -float((weights * (onehot * log_p).sum(1)).sum()) / total
    loss += 0.5 * float((parameters[:, :-1] ** 2).sum()) / (inverse_strength * total)
    error = (np.exp(log_p) - onehot) * (weights / total)[:, None].astype(np.float32)
    gradient = np.empty_like(parameters)
    gradient[:, :-1] = error.T @ x
    gradient[:, :-1] += parameters[:, :-1] / (inverse_strength * total)
    gradient[:, -1] = error.sum(0)
    return loss, gradient
