"""Made-up records of runs, for what reads them."""

import json

FIGURES = {
    "a_train": 1.0, "a_test": 0.9, "r_train": 0.8, "r_test": 0.7, "p_e_nat": 0.6, "p_e_adv": 0.65, "p_max": 0.65,
    "gap_nat": 0.55, "gap_adv": 0.56,
}  # fmt: skip


def record_of(config, *, seconds=90.0, gradient_passes=1000, forward_units=2000, **figures):
    """A made-up metrics.json, as it reads back from the file."""
    return json.loads(json.dumps({
        **FIGURES, **figures,
        "noise_floor": {"mean": 0.5044, "upper_95": 0.5087},
        "seconds": {"training": seconds, "evaluation": 9.0},
        "cost": {
            "gradient_passes": gradient_passes, "forward_units": forward_units, "updates": config.scaled_updates,
        },
        "data": {"name": config.dataset, "num_members": 10_000, "num_non_members": 9_000},
        "versions": {"pineat_tf": "0.1.0", "keras": "3.15.1"},
        "flags": config.to_dict(without=("output_dir", "overwrite", "resume")),
    }))  # fmt: skip
