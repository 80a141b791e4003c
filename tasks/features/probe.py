"""A linear classifier that is fitted on the features of the training images.

Source: A. Radford et al., "Learning transferable visual models from natural language supervision" (CLIP), ICML 2021:
logistic regression on frozen features, C = 0.316.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from suite.contract.metric import Metric, Need
from suite.stats.aggregates import Share
from tasks.features.knn import BANK, SAMPLE
from tasks.features.protocol import Found, Protocol

C = 0.316
STEPS, PRECISION = 1000, 1e-6
CLASSES = Need("classes", 2, "2 classes among the training images")


class LinearProbe(Protocol):
    """Multinomial logistic regression on the features as they are, with an L2 penalty (C = 0.316)."""

    name = "probe"
    metrics = (Metric("probe", "Linear probe (%)", Share("probe"), needs=(SAMPLE, BANK, CLASSES)),)
    said = f"linear probe: multinomial logistic regression on the features as they are, C = {C}, until it has converged"

    def columns(self, found: Found) -> dict[str, np.ndarray]:
        """Whether the class of the largest logit is right."""
        fitted = fit_logistic(found.bank.features, found.bank.labels[:, 0])
        if not fitted.converged:
            found.notes.append(f"the linear probe had not converged after {STEPS} steps")
        return {"probe": found.samples.is_right(fitted.predict(found.samples.features)[:, None])[:, 0]}


@dataclass(frozen=True)
class Logistic:
    """weight (K, C) and bias (K,) of the K classes that occurred, ascending in `classes`."""

    weight: np.ndarray
    bias: np.ndarray
    classes: np.ndarray
    converged: bool

    def predict(self, features: np.ndarray) -> np.ndarray:
        """(n,) classes of features (n, C); of equal logits the lowest."""
        found: np.ndarray = self.classes[(features @ self.weight.T + self.bias).argmax(axis=1)]
        return found


def fit_logistic(features: np.ndarray, labels: np.ndarray, c: float = C) -> Logistic:
    """The minimum of the sum of cross-entropies over n samples plus |weight|² / (2c), by L-BFGS in float64.

    The bias is not penalised. As scikit-learn's LogisticRegression(C=c) defines it.
    """
    classes, places = np.unique(labels, return_inverse=True)
    (n, width), kinds = features.shape, len(classes)
    truth = np.eye(kinds)[places]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = flat[: kinds * width].reshape(kinds, width), flat[kinds * width :]
        logits = features @ weight.T + bias
        error = softmax(logits, axis=1) - truth
        entropy = (logsumexp(logits, axis=1) - logits[np.arange(n), places]).mean()
        gradient = [(error.T @ features + weight / c).ravel() / n, error.mean(axis=0)]
        return float(entropy + (weight**2).sum() / (2 * c * n)), np.concatenate(gradient)

    limits = {"maxiter": STEPS, "gtol": PRECISION, "ftol": 0.0}
    found = minimize(loss, np.zeros(kinds * (width + 1)), jac=True, method="L-BFGS-B", options=limits)
    weight, bias = found.x[: kinds * width].reshape(kinds, width), found.x[kinds * width :]
    # of a step too small for float64 it says that it failed, where nothing more can be had
    return Logistic(weight, bias, classes, bool(found.nit < STEPS))
