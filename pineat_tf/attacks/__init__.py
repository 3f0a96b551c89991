"""Attacks: what generates adversarial examples."""

from pineat_tf.attacks.apgd import AutoPGD, apgd
from pineat_tf.attacks.deepfool import DeepFool, deepfool
from pineat_tf.attacks.fab import FastAdaptiveBoundary, fab
from pineat_tf.attacks.fast import fgsm_rs, n_fgsm
from pineat_tf.attacks.gradient import GradientAttack, dist, fgsm, pgd, trades_kl, wrm_l2
from pineat_tf.attacks.square import SquareAttack, square
from pineat_tf.attacks.suites import auto_attack

__all__ = [
    "AutoPGD",
    "DeepFool",
    "FastAdaptiveBoundary",
    "GradientAttack",
    "SquareAttack",
    "apgd",
    "auto_attack",
    "deepfool",
    "dist",
    "fab",
    "fgsm",
    "fgsm_rs",
    "n_fgsm",
    "pgd",
    "square",
    "trades_kl",
    "wrm_l2",
]
