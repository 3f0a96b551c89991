"""Made-up records of runs, for what reads them."""

import json

from experiments import results

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


def keep(path, *runs):
    """Writes a file of made-up runs, given as (row, config, figures that are not the usual ones)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    results.write(path, [_flat(row.group, row.label, config, figures) for row, config, figures in runs])


def tidy(*rows):
    """Made-up runs as tables take them: rows are (group, label, pairs of config and figures that are not the usual)."""
    runs = [(group, label, config, figures) for group, label, pairs in rows for config, figures in pairs]
    return results.tidy([_flat(*run) for run in runs], [config for _, _, config, _ in runs])


def _flat(group, label, config, figures):
    return {"group": group, "label": label, **results.flat(record_of(config, **figures))}
