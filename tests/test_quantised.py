"""The table of what 8 bits do shows the committed record."""

import json
import pathlib

ROOT = pathlib.Path(__file__).parents[1]


def test_the_guide_shows_the_record():
    record = json.loads((ROOT / "experiments/study/results/quantised/quantised.json").read_text(encoding="utf-8"))
    guide = (ROOT / "docs" / "guides" / "export.md").read_text(encoding="utf-8")
    assert len(record) >= 4
    for one in record:
        left = "not asked"
        if attacked := one["auto_attack"]:
            left = "{:.3f} [{:.3f}, {:.3f}]".format(attacked["leaves"], *attacked["interval_95"])
        figures = [f"{one[name]:.4f}" for name in ("a_test", "r_test")]
        figures += [left, *(f"{one[name]:.4f}" for name in ("p_e_nat", "p_e_adv", "p_max"))]
        assert f"| {one['network']} | {one['numbers']} | {' | '.join(figures)} |" in guide
