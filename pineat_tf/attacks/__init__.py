"""Attacks: what generates adversarial examples."""

from pineat_tf.attacks.apgd import AutoPGD, apgd
from pineat_tf.attacks.fast import fgsm_rs, n_fgsm
from pineat_tf.attacks.gradient import GradientAttack, dist, pgd, trades_kl, wrm_l2

__all__ = ["AutoPGD", "GradientAttack", "apgd", "dist", "fgsm_rs", "n_fgsm", "pgd", "trades_kl", "wrm_l2"]
