"""Figure 1's numbers in closed form, what its recorder records, and pictures of sweeps that are whole and not blank."""

import json
import warnings

import keras
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from made_up import tidy

from experiments import method, statistics
from experiments.config import ExperimentConfig
from experiments.figures import pareto, ratios, style, trends
from experiments.study import clusters, records, scales
from experiments.study.figure1 import main
from experiments.sweep import plan

IMAGES, PASSES = 50, 40


def recorded(noise, **companions):
    """Noises of shape (passes, images, pixels) around grey images; companions as noises, too."""
    natural = np.full((noise.shape[1], 4, 4, 1), 0.5, np.float32)

    def shaped(of_all):
        return natural + of_all.reshape(*of_all.shape[:2], 4, 4, 1)

    return clusters.Recorded(
        natural, np.arange(len(natural)) % 10, shaped(noise), {k: shaped(v) for k, v in companions.items()}
    )


def test_noise_that_never_changes_is_aligned_and_its_mirror_images_disperse_it():
    same = np.broadcast_to(np.random.default_rng(0).normal(size=(1, IMAGES, 16)), (PASSES, IMAGES, 16))
    jitter = same + 1e-3 * np.random.default_rng(1).normal(size=same.shape)
    figures = clusters.measure(recorded(jitter, mirror=-jitter))
    assert figures["alignment"].mean == pytest.approx(1.0, abs=1e-4)
    assert figures["dispersion with mirror"].mean > 1e4


def test_independent_noise_is_not_aligned_and_its_mirror_images_disperse_no_more():
    noise = np.random.default_rng(0).normal(size=(PASSES, IMAGES, 16))
    figures = clusters.measure(recorded(noise, mirror=-noise, natural=np.zeros_like(noise)))
    assert abs(figures["alignment"].mean) < 0.02
    # Without companions the centroid is off by a 40th of the variance: 1 / (1 - 1/40).
    assert figures["dispersion with mirror"].mean == pytest.approx(40 / 39, rel=0.02)
    assert figures["dispersion with natural"].mean == pytest.approx(0.5, rel=0.04)  # half of the points at the centroid


def test_half_a_common_part_is_half_aligned():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(1, IMAGES, 16)) + rng.normal(size=(PASSES, IMAGES, 16))  # equal shares of the variance
    assert clusters.measure(recorded(noise, mirror=-noise))["alignment"].mean == pytest.approx(0.5, abs=0.04)


def test_the_recorder_keeps_what_the_next_round_would_generate():
    config = ExperimentConfig(dataset="digits", network="mlp", variant="original", num_steps=2, seed=3)
    keras.utils.set_random_seed(0)
    network = method.network(config, input_shape=(8, 8, 1), num_classes=10, precision="float32")
    model = method.trainer(config, network)
    images, labels = np.random.default_rng(0).uniform(size=(4, 8, 8, 1)).astype(np.float32), np.arange(4)
    recorder = clusters.Recorder(config, images, labels)
    model.fit(images, labels, batch_size=4, epochs=2, callbacks=[recorder], verbose=0)
    assert len(recorder.adversarial) == 2 and not np.array_equal(*recorder.adversarial)
    seen = []
    model.attacks = (lambda logits_fn, x, y, seed: seen.append(method.attack(config)(logits_fn, x, y, seed=seed)) or x,)
    model.run_eagerly = True
    model.train_function = None
    model.fit(images, labels, batch_size=4, verbose=0, shuffle=False)
    assert np.abs(recorder.adversarial[1] - images).max() <= 0.1 + 1e-6
    np.testing.assert_allclose(seen[0], recorder.adversarial[1], atol=1e-6)


ROWS = [
    f"--row={attack} | Original | quickstart.flags smoke.flags --network=mlp --variant=original --attack={attack}"
    for attack in ("pgd", "dist")
]


def test_the_command_draws_measures_and_trains_once(tmp_path, capsys):
    arguments = ["figures", *ROWS, f"--output_dir={tmp_path}", "--name=one"]
    assert main([*arguments, "--dry_run"]) == 0
    told = capsys.readouterr().out
    assert "2 rows, of which 2 are to be trained" in told and "2 runs to do" in told and not list(tmp_path.iterdir())
    assert main([*arguments, "--tables_only"]) == 2 and "'pgd Original' is not" in capsys.readouterr().err
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "| pgd Original | " in printed and "rounds of 1/0" in printed
    assert (tmp_path / "one.md").read_text(encoding="utf-8").count("| dist Original | ") == 1
    figures = json.loads((tmp_path / "one.json").read_text(encoding="utf-8"))
    assert set(figures) == {"pgd Original", "dist Original"}
    assert figures["pgd Original"]["dispersion with reverse symmetry"]["mean"] > 1
    assert is_drawn(tmp_path / "one.png")
    assert main(arguments) == 0
    assert "rounds of 1/0" not in capsys.readouterr().out  # read, not trained again
    assert main([*arguments, "--tables_only", "--name=one.v2"]) == 0
    assert (tmp_path / "one.v2.png").exists() and (tmp_path / "one.v2.json").exists()
    (tmp_path / "examples" / "pgd-original.npz").unlink()
    assert main([*arguments, "--dry_run"]) == 0 and "of which 1 are to be trained" in capsys.readouterr().out
    one_pass = [f"{row} --updates=2" for row in ROWS[:1]]
    assert main(["figures", *one_pass, f"--output_dir={tmp_path / 'short'}"]) == 2
    assert "of which there must be two at least" in capsys.readouterr().err


def is_drawn(path):
    pixels = matplotlib.image.imread(path)
    return min(pixels.shape[:2]) > 300 and len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 50


def test_the_front_is_of_the_points_that_none_beats():
    assert pareto.front([(0.5, 0.6), (0.6, 0.7), (0.6, 0.5), (0.55, 0.6), (0.5, 0.55)]) == [0, 1]
    rng = np.random.default_rng(0)
    points = [tuple(point) for point in rng.uniform(size=(60, 2))]
    beaten = {i for i, (p, r) in enumerate(points) for q, s in points if q <= p and s >= r and (q, s) != (p, r)}
    assert set(pareto.front(points)) == set(range(60)) - beaten


@pytest.mark.parametrize("groups", [["PGD"], ["", "PGD", "Dist"]])
def test_every_row_looks_different_and_a_family_has_a_colour(groups):
    variants = {f"{variant} {number}": variant for variant in ("original", "pineat") for number in range(5)}
    titles = [(group, label) for group in groups for label in variants]
    rows = ((group, label, [(ExperimentConfig(variant=variants[label]), {})]) for group, label in titles)
    looks = style.looks(tidy(*rows))
    assert len({(look.colour, look.mark) for look in looks.values()}) == len(titles)
    assert len({look.colour for look in looks.values()}) == (2 if len(groups) == 1 else 3)
    assert len(style.legend(looks)) == (10 if len(groups) == 1 else 12)


def test_the_interval_of_a_single_run_is_binomial():
    one = tidy(("", "One", [(ExperimentConfig(), {"r_test": 0.7, "p_max": 0.55})]))
    (p_low, p_high), (r_low, r_high) = pareto.intervals(one)["One"]
    assert (r_low, r_high) == pytest.approx((0.7 - 0.0095, 0.7 + 0.0095), abs=1e-3)  # 1.96 sqrt(.7 .3 / 9,000)
    assert (p_low, p_high) == pytest.approx((0.55 - 0.0071, 0.55 + 0.0071), abs=1e-4)
    several = tidy(("", "One", [(ExperimentConfig(seed=seed), {"p_max": 0.55 + 0.01 * seed}) for seed in range(3)]))
    assert pareto.intervals(several)["One"][0] == pytest.approx((0.56 - 0.0248, 0.56 + 0.0248), abs=1e-3)  # t(2)


def test_names_find_room_beside_each_other():
    taken = [(0.5, 0.5), (0.52, 0.5)]
    spots = [pareto._free_side(np.array(place), "a name", taken) for place in taken[:2]]
    (x1, y1, _), (x2, y2, _) = spots
    assert abs(y1 - y2) >= 0.024 or abs(x1 - x2) > 0.06
    assert pareto._free_side(np.array([0.99, 0.5]), "at the right end", [(0.99, 0.5)])[2]["ha"] == "right"


def test_small_differences_do_not_fill_the_page():
    near = tidy(
        *(("", label, [(ExperimentConfig(), {"p_max": p, "r_test": 0.7})]) for label, p in (("A", 0.506), ("B", 0.508)))
    )
    (left, right), (bottom, top) = pareto._crowd(near)
    assert right - left >= 0.02 - 1e-9 and top - bottom >= 0.05 - 1e-9


def of_rows(name, rows=slice(None), seeds="0-2", figures=lambda row: {}):
    """Made-up runs of rows of a flag file."""
    rows = plan.read(["sweep", f"--flagfile={name}_fmnist.flags", f"--seeds={seeds}"], "").rows[rows]
    return tidy(*((row.group, row.label, [(config, figures(row)) for config in row.configs]) for row in rows))


def test_pictures_of_a_sweep_are_drawn_and_a_far_row_is_shown_aside(tmp_path):
    rng = np.random.default_rng(1)

    def figures(row):
        p_max, r_test = rng.uniform((0.51, 0.68), (0.55, 0.70))
        far = row.label == "PINEAT-1/4"
        return {"p_max": p_max + 0.2 * far, "r_test": r_test - 0.6 * far}

    both = of_rows("ratios", slice(1, 12), figures=figures)
    near = both[both["label"] != "PINEAT-1/4"]
    assert len(near) < len(both) and ratios.has_ratios(near) and not ratios.has_ratios(near[:9])
    ratios.write(tmp_path / "ratios.png", both, title="A sweep")
    for name, runs in (("near", near), ("both", both)):
        pareto.write(tmp_path / f"{name}.png", runs, title="A sweep", with_paper=False)
    assert all(is_drawn(tmp_path / f"{name}.png") for name in ("near", "both", "ratios"))
    assert pareto._holds(pareto._crowd(near), near, with_paper=False)
    assert not pareto._holds(pareto._crowd(both), both, with_paper=False)
    (left, right), (bottom, top) = pareto._crowd(both)
    assert near["p_max"].between(left, right).all() and bottom < 0.69 < top
    assert right < 0.6 and bottom > 0.6


def test_the_picture_of_ratios_leaves_out_what_differs_in_more():
    rows = ratios._rows(of_rows("ablations", seeds="0"))
    alike = ratios._alike(rows)
    assert list(alike["label"]) == ["PINEAT-1/1", "PINEAT-1/2", "PINEAT-2/1"]
    originals = rows[(rows["variant"] == "original") & (rows["settings"] == alike["settings"].iloc[0])]
    assert list(originals["label"]) == ["Original"]


def test_pictures_against_a_scale_have_the_figures_of_the_records(tmp_path):
    runs = records.sweep("scaled_fmnist", *records.SCARCE)
    by_method = {panel.title: panel for panel in scales.companions(runs)}
    leaving, staying, random = by_method["PGD"].lines
    for line, suffix in ((leaving, ""), (staying, " in the range")):
        assert list(line.points) == [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]
        expected = statistics.difference(runs, f"PGD mirrored h = -1{suffix}", "PGD Original", "p_max")
        assert line.points[-1.0]["p_max"] == pytest.approx(expected)
    assert leaving.points[0.0]["r_test"] == statistics.difference(runs, "PGD natural h = 0", "PGD Original", "r_test")
    assert random.points[None]["a_test"] == statistics.difference(runs, "PGD random", "PGD Original", "a_test")
    trends.write(tmp_path / "scales.png", list(by_method.values()), title="Companions")
    assert is_drawn(tmp_path / "scales.png")


def test_records_of_several_sweeps_make_one_picture_without_a_warning():
    runs = [records.sweep("best_fmnist", *records.SCARCE), records.sweep("scale_fmnist", "study.flags")]
    with warnings.catch_warnings(action="error"):
        images, _ = scales.sizes(pd.concat(runs))
    best = {line.label: line.points for line in images.lines}["IBP Best"]
    assert best[2500]["p_max"].mean == runs[0].query("title == 'IBP Best'")["p_max"].mean()


def test_pictures_of_sizes_change_one_thing_at_a_time():
    def runs_of(train_size, width):
        configs = [ExperimentConfig(train_size=train_size, width=width, seed=seed) for seed in range(2)]
        return ("", "PINEAT-1/1", [(one, {"a_test": train_size / 1e5, "r_test": width / 10}) for one in configs])

    runs = pd.concat([tidy(runs_of(*size)) for size in ((2500, 2), (10_000, 2), (2500, 1), (10_000, 4))])
    images, widths = scales.sizes(runs)
    assert images.ticks == [2500, 10_000] and widths.ticks == [1, 2]  # not 4, which only the larger set has
    (line,) = images.lines
    assert [point["a_test"].mean for point in line.points.values()] == pytest.approx([0.025, 0.1])
    assert [point["r_test"].mean for point in widths.lines[0].points.values()] == pytest.approx([0.1, 0.2])
