"""A search for settings: what it draws, what rises, when it stops, what it recommends, that it has no test image."""

import dataclasses
import re
import shutil
import sys
from types import SimpleNamespace

import filelock
import numpy as np
import optuna
import pytest
from made_up import record_of
from test_shadow_study import run_here

from experiments import command_line, cost, datasets, options, results, session
from experiments.config import ExperimentConfig, names
from experiments.datasets import loading
from experiments.signals import InterruptedRun
from experiments.sweep import executors
from experiments.tune import axes, clock, points, search
from experiments.tune.__main__ import main
from experiments.tune.plan import Plan
from experiments.tune.points import Point
from experiments.tune.search import Search

BASE = ExperimentConfig(
    dataset="digits", network="mlp", pools="split", updates=90, learning_rates=(1e-3, 1e-4), boundaries=(60,), seed=5
)


# ---------------------------------------------------------------- axes


def draws(num, base=BASE):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [axes.settings(base, tuple(axes.AXES), study.ask()) for _ in range(num)]


def test_what_axes_set_trains_and_never_says_which_images_a_run_has():
    data = {"dataset", "data_dir", "pools", "train_size", "test_size", "half", "seed", "canaries"}
    drawn = draws(150)
    found = {name for settings in drawn for name in settings}
    assert found <= {*names(scope="training")} - data
    assert {"attack", "objective", "num_steps", "ibp_share", "awp_gamma", "variant", "ratio", "ema_momentum"} <= found
    for settings in drawn:
        config = dataclasses.replace(BASE, **settings)
        assert config.num_steps * config.step_size == pytest.approx(BASE.num_steps * BASE.step_size, rel=0.01)
        if config.variant == "natural":
            assert not {"objective", "num_steps", "awp_gamma", "ratio"} & settings.keys()


def test_what_axes_take_the_effect_from_is_left_out():
    used = {"label_smoothing": 0.1, "rs_clip": False, "order": "companions", "epsilon_ramp": (0.0, 0.5)}
    base, beside = dataclasses.replace(BASE, **used), dataclasses.replace(BASE, momentum=0.5)
    for settings in draws(100, base):
        options.check_used([dataclasses.replace(base, **settings)], lambda name: True)
    with pytest.raises(ValueError, match="`momentum` has no effect"):  # by no axis
        options.check_used([dataclasses.replace(beside, **draws(1, beside)[0])], lambda name: True)


@pytest.mark.parametrize("factor, size", [(0.25, 25), (2.0, 200)])
def test_other_batches_see_as_many_images(factor, size):
    base = dataclasses.replace(BASE, batch_size=100, updates=90)
    settings = axes.settings(base, ("batch_size",), optuna.trial.FixedTrial({"batch_size": factor}))
    config = dataclasses.replace(base, **settings)
    assert config.batch_size == size and config.scaled_updates * size == base.updates * base.batch_size


@pytest.mark.parametrize("factor, size", [(1.0, 100), (0.25, 1)])
def test_batches_that_stay_as_they_are_leave_the_schedule_alone(factor, size):
    base = dataclasses.replace(BASE, batch_size=size, schedule_scale=1.2345)  # more digits than axes give
    assert axes.settings(base, ("batch_size",), optuna.trial.FixedTrial({"batch_size": factor})) == {}


def test_stored_trials_give_the_settings_that_were_drawn():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(20):
        trial = study.ask()
        drawn = axes.settings(BASE, tuple(axes.AXES), trial)
        study.tell(trial, 0.0)
        assert axes.settings(BASE, tuple(axes.AXES), study.trials[-1]) == drawn


# ---------------------------------------------------------------- points


def point(number, robust, leakage, accuracy=0.9, updates=90):
    run = {"r_test": robust, "p_max": leakage, "a_test": accuracy}
    return Point(number, dataclasses.replace(BASE, updates=updates), {}, run)


def test_the_front_is_what_none_beats_in_all_figures_cost_among_them():
    good, cheap, beaten = point(0, 0.7, 0.55), point(1, 0.6, 0.55, updates=60), point(2, 0.7, 0.56)
    assert points.front([beaten, good, cheap]) == [good, cheap]
    assert [one.number for one in points.ranked([beaten, cheap, good], {})][-1] == 2
    assert good.figures["passes"] == cost.forwards(BASE) / 100 > cheap.figures["passes"]


def test_limits_come_before_all_and_the_reason_says_so():
    found = [point(0, 0.9, 0.7), point(1, 0.6, 0.52), point(2, 0.75, 0.58)]
    best, reason = points.recommended(found, {})
    assert best.number == 2 and reason.startswith("Of the 3 settings 3 are beaten by none in all figures, of which #2 ")
    best, reason = points.recommended(found, {"leakage": 0.55})
    assert best.number == 1 and reason.startswith("Of the 1 settings that keep the limits 1 are beaten by none")
    assert "robust accuracy 0.6000, leakage P_MAX 0.5200, accuracy 0.9000, forward passes " in reason
    best, reason = points.recommended(found, {"leakage": 0.55, "robust": 0.74})
    assert best.number == 2 and reason == (
        "No settings keep all limits; #2 misses --max_leakage=0.55 by the least (leakage P_MAX 0.5800)."
    )
    assert points.ranked(found, {"leakage": 0.55})[0].number == 1


# ---------------------------------------------------------------- the search, by made-up runs


def figures_of(config):
    """More steps: more robust, leaks more; short runs are worse."""
    way = config.num_steps / 10
    return {"r_test": 0.5 * way + 0.2 * config.schedule_scale, "p_max": 0.5 + 0.1 * way, "a_test": 0.95 - 0.1 * way}


class Made:
    """Runs that take made-up time and no training."""

    def __init__(self, monkeypatch, seconds=30.0, stop_at=None):
        self.configs, self.now, self.stop_at, self.seconds = [], 0.0, stop_at, seconds
        speed = SimpleNamespace(training=lambda config, rounds: self.takes(config), evaluation=lambda config: 0.0)
        monkeypatch.setattr(executors, "run", self)
        monkeypatch.setattr(session, "build", lambda config, data: None)
        monkeypatch.setattr(cost, "measure", lambda session: speed)
        for module in clock, search:
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))

    def takes(self, config):
        return self.seconds * config.schedule_scale

    def __call__(self, job, num_shares):
        self.configs.append(job.config)
        if self.stop_at == len(self.configs):
            raise InterruptedRun("stopped", 130)
        self.now += self.takes(job.config)
        return executors.Outcome(job, record_of(job.config, **figures_of(job.config)), "")


def plan_in(folder, **changes):
    usual = dict(
        base=BASE, axes=("steps", "pad"), limits={}, trials=6, rungs=2, budget=float("inf"), jobs=1, executor="local",
        report_seeds=3, folder=folder,
    )  # fmt: skip
    return Plan(**{**usual, **changes})


def searched(folder, **changes):
    folder.mkdir(exist_ok=True)
    found = Search(plan_in(folder, **changes))
    found.cost()
    found.run()
    return found


def test_short_runs_come_first_and_the_best_third_of_them_rises(tmp_path, monkeypatch):
    made = Made(monkeypatch)
    limits = {"leakage": 0.57}
    found = searched(tmp_path, limits=limits)
    scales = [config.schedule_scale for config in made.configs]
    assert scales.count(1 / 3) == len(found.found(0)) <= 6 and scales.count(1.0) == len(found.found(1)) <= 3
    first = points.ranked(found.found(0), limits)
    assert points.missed(first[-1], limits) > 0
    risen = {one.number for one in found.found(1)}
    assert first[0].number in risen and first[-1].number not in risen
    assert all(trial.constraints for trial in found._study.trials if trial.state.name == "COMPLETE")
    assert scales.index(1.0) < len(scales) - 2  # not at the end only


def test_the_flags_as_they_are_come_first_and_are_always_trained_in_full(tmp_path, monkeypatch):
    base = dataclasses.replace(BASE, num_steps=10)  # leaks most of all
    made = Made(monkeypatch, stop_at=1)
    with pytest.raises(InterruptedRun):
        searched(tmp_path, base=base, axes=("steps",), limits={"leakage": 0.51})
    found = searched(tmp_path, base=base, axes=("steps",), limits={"leakage": 0.51})
    assert [(config.num_steps, config.schedule_scale) for config in made.configs[:3]] == [(10, 1 / 3)] * 2 + [(10, 1.0)]
    assert points.ranked(found.found(0), found.plan.limits)[-1].settings == {}
    assert {} in [one.settings for one in found.found(1)]


def test_flags_that_a_limit_left_out_are_trained_once_a_later_one_allows_them(tmp_path, monkeypatch):
    Made(monkeypatch)
    changes, limit = {"axes": ("length",), "rungs": 1}, 0.09 * points.passes(BASE)
    cheap = searched(tmp_path, limits={"passes": limit}, trials=1, **changes)
    assert [point.settings == {} for point in cheap.found(0)] == [False]
    for _ in range(2):
        found = searched(tmp_path, trials=2, **changes)
        assert len(found.found(0)) == 2 and [point.settings for point in found.found(0)].count({}) == 1


def test_a_search_over_few_settings_tries_them_all(tmp_path, monkeypatch):
    Made(monkeypatch)
    for seed in range(4):
        base = dataclasses.replace(BASE, seed=seed)
        found = searched(tmp_path / f"{seed}", base=base, axes=("companions", "flip"), trials=40, rungs=1)
        assert len(found.found(0)) == 8


def test_short_runs_fill_the_time_beside_a_long_one(tmp_path, monkeypatch):
    made, batches = Made(monkeypatch), []
    train = executors.train
    monkeypatch.setattr(executors, "train", lambda jobs, *rest: batches.append(jobs) or train(jobs, *rest))
    searched(tmp_path, axes=("steps", "learning_rate"), trials=8, rungs=3, jobs=2)
    scales = [[round(1 / job.config.schedule_scale) for job in jobs] for jobs in batches]
    assert scales[:3] == [[9, 9], [3, 9, 9, 9], [1, 3, 9, 9, 9]]  # the eight settings have begun
    assert len(made.configs) == sum(map(len, batches))


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_settings_are_tried_once_and_a_search_ends_when_there_are_no_others(tmp_path, monkeypatch, capsys, jobs):
    made = Made(monkeypatch)
    found = searched(tmp_path, axes=("companions",), trials=20, jobs=jobs, rungs=1)
    assert "50 settings in a row are no runs to train, the last one as: they have been tried" in capsys.readouterr().out
    variants = [config.variant for config in made.configs]
    assert sorted(variants) == ["advnat", "advran", "original", "pineat"] and len(found.found(0)) == 4


def test_settings_that_failed_are_not_tried_again(tmp_path, monkeypatch):
    made, run = Made(monkeypatch), []

    def failing(job, num_shares):
        run.append(job.config.augment_flip)
        return executors.Outcome(job, None, "boom") if job.config.augment_flip else made(job, num_shares)

    monkeypatch.setattr(executors, "run", failing)
    searched(tmp_path, axes=("flip",), rungs=1)
    assert run == [False, True]


def test_averages_of_weights_span_the_same_share_of_a_short_training(tmp_path):
    plan = plan_in(tmp_path, rungs=3)
    averaged = dataclasses.replace(BASE, ema_momentum=0.99)
    assert [plan.trial(averaged, rung).ema_momentum for rung in range(3)] == [0.91, 0.97, 0.99]
    wide = dataclasses.replace(BASE, ema_momentum=0.8)  # a ninth of the training has no room for half of the average
    assert [plan.trial(wide, rung).ema_momentum for rung in range(3)] == [0.0, 0.4, 0.8]
    assert [plan.trial(BASE, rung).ema_momentum for rung in range(3)] == [0.0] * 3


def test_every_run_of_a_search_has_images_of_the_training_split_and_the_report_new_seeds(tmp_path, monkeypatch):
    made = Made(monkeypatch)
    found = searched(tmp_path)
    assert {(config.pools, config.seed) for config in made.configs} == {("exchangeable", 5)}
    before = len(made.configs)
    report = found.report()
    assert [(config.pools, config.seed) for config in made.configs[before:]] == [("split", s) for s in (6, 7, 8)]
    best, _ = points.recommended(found.found(1), {})
    assert {config.num_steps for config in made.configs[before:]} == {best.config.num_steps}
    assert list(report["seed"]) == [6, 7, 8]


def test_a_budget_holds_with_the_report_in_it(tmp_path, monkeypatch):
    made, changes = Made(monkeypatch), {"axes": ("steps", "learning_rate"), "trials": 60, "budget": 220.0}
    found = searched(tmp_path, **changes)
    assert 100 < made.now <= 130 and found.found(1)  # 3 times 30 are kept for the report
    found.report()
    assert made.now <= 220
    num = len(made.configs)
    searched(tmp_path, **changes)
    assert len(made.configs) == num


def test_a_budget_without_room_for_one_run_and_its_report_is_refused(tmp_path, monkeypatch):
    made = Made(monkeypatch)
    with pytest.raises(ValueError, match=re.escape("`budget` must have time for a run of the full length and those")):
        searched(tmp_path, budget=119.0)
    assert not made.configs


def test_a_search_that_was_broken_off_goes_on_with_the_settings_that_it_was_at(tmp_path, monkeypatch):
    made = Made(monkeypatch, stop_at=3)
    with pytest.raises(InterruptedRun):
        searched(tmp_path)
    found = searched(tmp_path)
    dirs = [config.run_dir for config in made.configs]
    assert dirs[2] == dirs[3] and len(set(dirs)) == len(dirs) - 1
    assert len([trial for trial in found._study.trials if trial.state.name == "COMPLETE"]) == 6
    num = len(dirs)
    again = searched(tmp_path, limits={"robust": 0.99})  # other limits need no other short runs
    assert len(made.configs) <= num + 1
    assert "misses --min_robust" in points.recommended(again.found(1), {"robust": 0.99})[1]
    with pytest.raises(ValueError, match=re.escape("holds a search with other flags (--epsilon)")):
        Search(plan_in(tmp_path, base=dataclasses.replace(BASE, epsilon=0.2)))


def test_settings_that_cost_too_much_are_not_trained_and_failures_are_told(tmp_path, monkeypatch):
    made, full = Made(monkeypatch), points.passes(BASE)
    monkeypatch.setattr(search, "_MOST_REFUSED", 5)
    searched(tmp_path / "a", limits={"passes": full}, trials=2)
    assert made.configs and all(points.passes(config) <= full for config in made.configs)
    with pytest.raises(ValueError, match="5 settings in a row are no runs to train, .* Raise --max_passes"):
        searched(tmp_path / "b", limits={"passes": 1.0})
    searched(tmp_path / "a", limits={"passes": 1.0}, trials=9)  # ends with what was found before
    monkeypatch.setattr(executors, "run", lambda job, num: executors.Outcome(job, None, "training diverged."))
    with pytest.raises(ValueError, match=r"no settings came to the end .* \(training diverged\)"):
        searched(tmp_path / "c")


def test_settings_are_shortened_to_what_they_may_cost_and_stay_so_under_another_limit(tmp_path, monkeypatch):
    made, most = Made(monkeypatch), 0.3 * points.passes(BASE)
    changes = {"axes": ("steps", "batch_size"), "rungs": 1}
    before = searched(tmp_path, limits={"passes": most}, **changes).found(0)
    passes = [points.passes(config) for config in made.configs]
    assert max(passes) <= most and sum(one > 0.95 * most for one in passes) >= 2
    num = len(passes)
    after = searched(tmp_path, limits={"passes": 2 * most}, **changes).found(0)
    assert after == before and len(made.configs) == num


# ---------------------------------------------------------------- the command

COMMAND = [
    "tune", "--flagfile=tune_digits.flags", "--flagfile=smoke.flags", "--network=mlp", "--pools=split", "--updates=12",
    "--axes=steps,companions", "--trials=3", "--report_seeds=2", "--budget=", "--jobs=1", "--max_leakage=0.99",
    "--min_robust=0", "--min_accuracy=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A search by runs of seconds, whose data have no test images until it reports."""
    folder, load = tmp_path_factory.mktemp("tuned"), loading._LOADERS["digits"]
    poisoned = {"search": 0, "report": 0}

    def run_job(job, num_shares):
        poisoned[job.group == "on test images" and "report" or "search"] += 1
        with pytest.MonkeyPatch.context() as patch:
            if job.group == "search":
                patch.setitem(loading._LOADERS, "digits", without_test_images)
            return run_here(job, num_shares)

    def without_test_images(data_dir):
        data = load(data_dir)
        return data._replace(test=datasets.Split(np.full_like(data.test.images, np.nan), data.test.labels * 0 - 1))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executors, "run", run_job)
        assert main([*COMMAND, f"--tune_dir={folder}"]) == 0
    assert poisoned == {"search": 4, "report": 2}
    return folder


def test_the_command_searches_without_test_images_and_reports_on_them(tuned):
    runs = results.read_csv(tuned / "runs.csv")
    assert [run["flags.pools"] for run in runs] == ["exchangeable"] * 4 + ["split"] * 2
    text = (tuned / "recommendation.md").read_text()
    assert text.startswith("`point-") and "| figure | #" in text and "Limits that do not hold: " in text
    for name in ("tune.md", "tune.csv", "tune_pareto.png", "tune.html"):
        assert (tuned / name).stat().st_size > 100
    assert "on test images" in (tuned / "tune.md").read_text()


def test_a_flag_file_of_a_point_is_its_run(tuned):
    (path,) = tuned.glob("point-*.flags")
    (config,) = command_line.configs_of_seeds([f"--flagfile={path}"], [0])
    found = results.Runs(tuned / "runs.csv").find(config)
    assert found["flags.schedule_scale"] == 1.0 and found["group"] == "search"


def test_what_is_done_is_laid_out_and_not_run_again(tuned, monkeypatch, capsys):
    monkeypatch.setattr(executors, "run", None)
    assert main([*COMMAND, f"--tune_dir={tuned}"]) == 0
    assert (tuned / "recommendation.md").read_text().strip() in capsys.readouterr().out


def test_without_a_report_no_test_image_is_seen_and_the_recommendation_stands(tuned, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(tuned, tmp_path / "copy")
    monkeypatch.setattr(executors, "run", None)
    monkeypatch.setattr("experiments.tune.search.Search.report", None)
    assert main([*COMMAND, f"--tune_dir={folder}", "--report_seeds=0"]) == 0
    text = (folder / "recommendation.md").read_text()
    assert text.startswith("`point-") and text in capsys.readouterr().out and "on test images" not in text


def test_a_dry_run_says_the_cost_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(executors, "run", None)
    assert main([*COMMAND, f"--tune_dir={tmp_path / 'out'}", "--dry_run"]) == 0
    assert "forward passes of 100 images, about" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--axes=stepps"], "Did you mean 'steps'?"),
        (["--axes="], "`axes` must be one of"),
        (["--budget=2"], "`budget` must be a time such as 90s, 30m or 2h. Received: '2'"),
        (["--budget=0h"], "`budget`"),
        (["--trials=0"], "`trials`"),
        (["--report_seeds=1"], "`report_seeds`"),
        (["--min_robust=70"], "`min_robust` must be at most 1. Received: min_robust=70.0. 0 is no limit."),
        (["--max_passes=inf"], "`max_passes` must be positive. Received: max_passes=inf. 0 is no limit."),
        (["--min_verified=.2"], "Give --verify as well"),
        (["--executor=slurm"], "`executor`"),
        (["--epsilon=-1"], "epsilon=-1"),
        (["--flagfile=nowhere.flags"], "nowhere.flags"),
        (["--dataset=image_folder", "--data_dir=/nowhere"], "/nowhere"),
    ],
)
def test_a_bad_command_is_refused_in_one_line(tmp_path, capsys, arguments, message):
    assert main([*COMMAND, f"--tune_dir={tmp_path / 'out'}", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err


def test_a_folder_at_work_and_a_missing_package_are_told(tmp_path, monkeypatch, capsys):
    with filelock.FileLock(tmp_path / "tune.lock"):
        assert main([*COMMAND, f"--tune_dir={tmp_path}"]) == 2
    assert "another search is at work in" in capsys.readouterr().err
    monkeypatch.delattr("experiments.tune.search")
    monkeypatch.setitem(sys.modules, "experiments.tune.search", None)  # as where an import of it fails
    assert main([*COMMAND, f"--tune_dir={tmp_path}"]) == 2
    assert "pip install '.[tune]'" in capsys.readouterr().err
