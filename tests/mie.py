"""What the authors' code of reference Song and Mittal (USENIX Security 2021) does, on data without random numbers."""

import numpy as np


def predictions(num, gain, shift, num_classes=4):
    """Labels and logits, as in goldens.md, E."""
    i, c = np.arange(num)[:, None], np.arange(num_classes)
    labels = (7 * i[:, 0] + shift) % num_classes
    logits = np.sin(0.37 * i * (c + 1) + shift) + 0.5 * np.cos(0.11 * i + c)
    logits[i[:, 0], labels] += gain * (1 + np.sin(0.05 * i[:, 0] + shift))
    return labels, logits


SHADOW = predictions(200, 1.5, 0), predictions(160, 0.9, 1)
TARGET = predictions(240, 1.6, 2), predictions(180, 0.8, 3)


def first_best_threshold(member, non_member):
    """The first of equally good thresholds, members' scores tried before non-members'."""
    candidates = np.concatenate([member, non_member])
    accuracies = [0.5 * (np.mean(member >= t) + np.mean(non_member < t)) for t in candidates]
    return float(candidates[np.argmax(accuracies)])


def modified_entropy_score(labels, probs, *, from_logits):
    """In the precision of the probabilities, which decides what ties; logarithms of less than 1e-30 are cut off."""
    rows = np.arange(len(labels))
    weights, logs = probs.copy(), np.log(np.maximum(1 - probs, 1e-30))
    weights[rows, labels] = (1 - probs)[rows, labels]
    logs[rows, labels] = np.log(np.maximum(probs, 1e-30))[rows, labels]
    return np.sum(weights * logs, axis=1)
