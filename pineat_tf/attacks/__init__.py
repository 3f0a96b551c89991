"""Attacks: what generates adversarial examples."""

from pineat_tf.attacks.gradient import GradientAttack, dist, pgd, trades_kl, wrm_l2

__all__ = ["GradientAttack", "dist", "pgd", "trades_kl", "wrm_l2"]
