"""Pictures: examples of a run, adversarial examples over training, the trade of robustness for leakage, the ratios."""
