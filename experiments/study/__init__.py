"""The study itself: its commands, and under `results/` what they found."""
