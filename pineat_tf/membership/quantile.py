"""Membership scores by quantile regression: how sure the network is, against how sure it would be of a non-member.

Larger = more likely a member. What is expected of non-members is learned from a public population, with no shadow
model. scikit-learn is imported by the functions that need it, as most uses of the library do without them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pineat_tf.checks import check_count
from pineat_tf.membership.scores import as_class_numbers, check_predictions, logit_score

__all__ = ["image_features", "quantile_regression_scores"]

_FEWEST_IN_POPULATION = 50
_NUM_FOLDS = 5  # of the residuals from which deviations are learned
_SMALLEST_VARIANCE = 1e-24  # the regression takes its logarithm


def quantile_regression_scores(
    population: Any, members: Any, non_members: Any, *, features: Sequence[Any], seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Scores each example by how many deviations its logit score lies above what a non-member's would be.

    The mean and the deviation of the logit score given the features of the image are learned from public examples that
    are no members. This is the paper's Gaussian variant, which its authors fit by boosted trees as well: it has the
    quantiles of all false positive rates at once, where one regression a quantile would cross and tie. The logit score
    is spread nearly normally (see `scores.logit_score`). The deviation is learned from the squared residuals of
    held-out folds, as residuals of the fit itself are too small.

    Args:
        population: predictions (`.logits`, `.labels`) of the network under audit for public examples that are neither
            among its members nor among `non_members`; at least 50, better thousands.
        members: its predictions of members.
        non_members: its predictions of unseen examples.
        features: what the attacker knows of the images of each of the three: arrays of shape `(num, dim)`, e.g. from
            `image_features`, or logits of another network that was trained on none of them. Nothing that the network
            under audit says of them.
        seed: randomness of the regressions, a whole number >= 0.

    Returns:
        Scores of the members and of the non-members, each of shape `(num,)`, float64. A threshold at the standard
        normal quantile of 1 - a has a false positive rate near a.

    Raises:
        ValueError: if predictions or features do not fit, or the population is too small.

    Example:
        >>> data = (x_public, y_public), (x_train, y_train), (x_test, y_test)
        >>> predictions = [predict_logits(network, part) for part in data]
        >>> scores = quantile_regression_scores(*predictions, features=image_features(*data))

    Reference:
        Bertran et al., "Scalable membership inference attacks via quantile regression", NeurIPS 2023.
    """
    check_count("seed", seed, 0, "scikit-learn takes a whole number of 32 bits.")
    examples = {"population": population, "members": members, "non_members": non_members}
    check_predictions(**examples)
    known = _checked_features(features, [len(part.labels) for part in examples.values()])
    scores = [logit_score(part.labels, part.logits).numpy() for part in examples.values()]
    centre, variance = _conditional_normal(known[0], scores[0], seed)
    of_members, of_non_members = (
        (values - centre.predict(of_image)) / np.sqrt(variance.predict(of_image))
        for values, of_image in zip(scores[1:], known[1:])
    )
    return of_members, of_non_members


def image_features(
    population: tuple[Any, Any], *others: tuple[Any, Any], num_components: int = 50
) -> tuple[np.ndarray, ...]:
    """Describes images by their principal components and class, for `quantile_regression_scores`.

    Args:
        population: images `(num, ...)` and their labels, by which the components are found.
        *others: further pairs of images and labels, described by the same components.
        num_components: how many, >= 1; at most as many as there are pixels or images in the population.

    Returns:
        One array a pair, of shape `(num, num_components + num_classes)`, float64: components, then the one-hot class.

    Raises:
        ValueError: if images and labels do not fit.

    Example:
        >>> features = image_features((x_public, y_public), (x_train, y_train), (x_test, y_test))
    """
    from sklearn.decomposition import PCA

    check_count("num_components", num_components, 1, "Each component is one feature of the image.")
    pairs = [_flat(*pair) for pair in (population, *others)]
    dims = {pixels.shape[1] for pixels, _ in pairs}
    if len(dims) != 1:
        raise ValueError(f"Images must be of one shape. Received: images of {sorted(dims)} pixels. Resize them.")
    num_classes = 1 + max(int(classes.max()) for _, classes in pairs)
    pca = PCA(min(num_components, *pairs[0][0].shape), random_state=0).fit(pairs[0][0])
    return tuple(np.hstack([pca.transform(pixels), np.eye(num_classes)[classes]]) for pixels, classes in pairs)


def _conditional_normal(features: np.ndarray, scores: np.ndarray, seed: int) -> tuple[Any, Any]:
    """Regressions of the mean and of the variance of the scores given the features."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.model_selection import KFold, cross_val_predict

    trees = {"early_stopping": True, "random_state": seed}
    centre = HistGradientBoostingRegressor(loss="squared_error", max_leaf_nodes=8, **trees)
    folds = KFold(_NUM_FOLDS, shuffle=True, random_state=seed)
    residuals = scores - cross_val_predict(centre, features, scores, cv=folds)
    # The deviance of the gamma distribution has its minimum at the mean, like the square, and keeps it above 0. A
    # squared residual says little of the variance: larger trees would fit its noise, and false alarms be too many.
    variance = HistGradientBoostingRegressor(loss="gamma", max_leaf_nodes=4, min_samples_leaf=50, **trees)
    variance.fit(features, np.maximum(residuals**2, _SMALLEST_VARIANCE))
    return centre.fit(features, scores), variance


def _checked_features(features: Sequence[Any], sizes: list[int]) -> list[np.ndarray]:
    arrays = [np.asarray(part, np.float64) for part in features]
    shapes = [array.shape for array in arrays]
    lengths, dims = [shape[:1] for shape in shapes], {shape[1:] for shape in shapes}
    if lengths != [(size,) for size in sizes] or len(dims) != 1 or arrays[0].ndim != 2:
        raise ValueError(
            f"`features` must be three arrays (num, dim) with num = {sizes}, for the population, the members and the "
            f"non-members, and one dim. Received: shapes {shapes}. Give e.g. `image_features(...)` of the three."
        )
    if sizes[0] < _FEWEST_IN_POPULATION:
        raise ValueError(
            f"`population` must have at least {_FEWEST_IN_POPULATION} examples to learn from. Received: {sizes[0]}. "
            "Give more of them; thousands are better."
        )
    return arrays


def _flat(given: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    images = np.asarray(given)
    if images.ndim < 2 or not len(images):
        raise ValueError(f"Images must have shape (num, ...), at least one. Received: shape {images.shape}.")
    return images.reshape(len(images), -1).astype(np.float64), as_class_numbers("labels", labels, len(images)).numpy()
