"""From a grid of rows to tables: what is run, what is found again, what is printed, and how a sweep goes on."""

import concurrent.futures
import contextlib
import csv
import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from made_up import keep, tidy
from test_shadow_study import run_here

from experiments import command_line, paper, results, statistics, tracking
from experiments.config import ExperimentConfig
from experiments.sweep import executors, grid, page, plan, tables
from experiments.sweep.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 1200.0  # seconds, against a hang


def parse(text, *, overlays=(), seeds=(0,), output_dir="runs"):
    return grid.parse_row(text, overlays=overlays, seeds=seeds, output_dir=output_dir)


# ---------------------------------------------------------------- the grid


def test_a_row_is_a_group_a_label_and_one_config_a_seed():
    row = parse("PGD | PINEAT-1/1, valid | fmnist_pgd.flags --rs_bounds=valid", seeds=(3, 0), output_dir="a/b")
    assert (row.group, row.label, row.title) == ("PGD", "PINEAT-1/1, valid", "PGD PINEAT-1/1, valid")
    assert [config.run_dir for config in row.configs] == [f"a/b/pgd-pineat-1-1-valid-seed{seed}" for seed in (3, 0)]
    three, zero = row.configs
    assert (zero.attack, zero.rs_bounds, zero.updates) == ("pgd", "valid", 80_000)
    assert dataclasses.replace(three, seed=0) == zero


def test_a_row_may_have_no_group():
    row = parse(" | Natural | fmnist_natural.flags")
    assert (row.group, row.title, row.slug) == ("", "Natural", "natural")


def test_overlays_win_over_the_files_of_a_row_and_its_own_flags_over_both(tmp_path):
    names = ("width", "num_steps", "eval_steps", "batch_size")
    for value, file in enumerate(("first", "second", "overlay"), start=1):  # each sets one flag less
        (tmp_path / file).write_text("\n".join(f"--{name}={value}" for name in names[value - 1 :]))
    text = f"A | B | {tmp_path / 'first'} {tmp_path / 'second'} --batch_size=4"
    (config,) = parse(text, overlays=[str(tmp_path / "overlay")]).configs
    assert [getattr(config, name) for name in names] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "text",
    [
        "PGD | fmnist_pgd.flags",
        "PGD | | fmnist_pgd.flags",
        "PGD | a | b | fmnist_pgd.flags",
        "PGD | A | nowhere.flags",
        "PGD | A | fmnist_pgd.flags --epsillon=0.1",
        "PGD | A | fmnist_pgd.flags --epsilon=wide",
        "PGD | A | fmnist_pgd.flags --epsilon=-1",
        "PGD | A | fmnist_pgd.flags --width=1 small.flags",
        "PGD | A | quickstart.flags",  # of two variants
        "PGD | A | fmnist_pgd.flags --data_dir='my data",  # no closing quotation
    ],
)
def test_a_row_that_is_no_run_is_refused_by_what_was_written(text):
    with pytest.raises(ValueError) as error:
        parse(text)
    assert repr(text) in str(error.value)


def test_seeds_are_lists_and_ranges():
    assert grid.parse_seeds("0-4") == (0, 1, 2, 3, 4)
    assert grid.parse_seeds(" 7, 0 - 1,3-3") == (7, 0, 1, 3)


@pytest.mark.parametrize("text", ["", "0,", "one", "-1", "0-", "4-0", "0..4", "1.5", "0,2,0", "0-4,2"])
def test_seeds_that_are_none_or_come_twice_are_refused(text):
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        grid.parse_seeds(text)


def test_patterns_choose_rows_in_the_order_of_the_grid():
    texts = ["| Natural | fmnist_natural.flags", *(f"{g} | {v} | fmnist.flags" for g in ("PGD", "Dist") for v in "AB")]
    rows = [parse(text) for text in texts]
    assert grid.select(rows, []) == rows
    assert [row.title for row in grid.select(rows, ["* b", " pgd *", "Natural"])] == [
        "Natural", "PGD A", "PGD B", "Dist B",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="--only='Diff .*' fits no row; the rows are 'Natural', 'PGD A'"):
        grid.select(rows, ["PGD *", "Diff *"])


SHIPPED = sorted(path.name for path in command_line.FLAGFILES.iterdir() if "--row=" in path.read_text())


@pytest.mark.parametrize("overlay", ["", "study.flags", "small.flags"])
@pytest.mark.parametrize("name", SHIPPED)
def test_every_run_of_a_sweep_flag_file_has_flags_and_a_directory_of_its_own(name, overlay):
    rows = plan.read(["sweep", f"--flagfile={name}", f"--overlay={overlay}"], "").rows
    configs = [config for row in rows for config in row.configs]
    assert len({config.run_dir for config in configs}) == len(configs)
    assert len({dataclasses.replace(config, output_dir="one") for config in configs}) == len(configs)


def test_a_row_that_comes_twice_counts_once_if_its_flags_are_the_same():
    row = "--row=PGD | Original | fmnist_pgd.flags --variant=original"
    (read,) = plan.read(["sweep", row, row], "").rows
    assert read.title == "PGD Original"
    with pytest.raises(ValueError, match="two of 'PGD Original' with other flags"):
        plan.read(["sweep", row, f"{row} --width=1"], "")
    with pytest.raises(ValueError, match="two of 'PGD Original' with other flags or groups"):
        plan.read(["sweep", row, "--row= | PGD Original | fmnist_pgd.flags --variant=original"], "")
    signs = [f"--row=PGD | h = {sign}1 | fmnist_pgd.flags --epsilon=0.{number}" for number, sign in enumerate("- ", 1)]
    with pytest.raises(ValueError, match="'PGD h = -1' and 'PGD h =  1' would both be 'pgd-h-1'"):
        plan.read(["sweep", *signs], "")


# ---------------------------------------------------------------- tables

NATURAL = " | Natural | fmnist_natural.flags"
PGD = [
    "PGD | Original | fmnist_pgd.flags --variant=original",
    "PGD | AdvNat-1/1 | fmnist_pgd.flags --variant=advnat",
    "PGD | PINEAT-1/2 | fmnist_pgd.flags --ratio=1/2",
]
DIST = ["Dist | Original | fmnist_dist.flags --variant=original", "Dist | PINEAT-1/1 | fmnist_dist.flags"]


def tabulated(figures):
    """Made-up runs: row -> seed -> figures that are not the usual ones."""
    rows = {text: parse(text, seeds=range(5)) for text in figures}
    return tidy(*(
        (row.group, row.label, [(row.configs[seed], values) for seed, values in figures[text].items()])
        for text, row in rows.items()
    ))  # fmt: skip


def cells_of(markdown):
    """Rows of a Markdown table below the titles, by first cell."""
    lines = [line[2:-2].split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    assert len({len(line) for line in lines}) == 1
    return [dict(zip(lines[0], line)) for line in lines[2:]]


def test_a_cell_is_the_mean_over_seeds_with_its_deviation():
    first = {"a_test": 0.90, "gap_nat": 0.6, "gap_adv": 0.5, "seconds": 90, "gradient_passes": 1_234_567}
    second = {"a_test": 0.92, "gap_nat": 0.5, "gap_adv": 0.8, "seconds": 150, "gradient_passes": 1_234_567}
    means = tables.estimates(tabulated({PGD[0]: {1: first, 4: second}, PGD[2]: {0: {}}}))
    cells = {name: tables.cell(name, one) for name, one in means.loc["PGD Original"].items()}
    assert cells["a_test"] == "0.9100 ± 0.0141"  # 0.02 / sqrt(2)
    assert cells["gap"] == "0.7000 ± 0.1414"  # 0.6 and 0.8, the larger of either run
    assert cells["minutes"] == "2.0 ± 0.7"  # 1.5 and 2.5: 1 / sqrt(2)
    assert cells["gradient_passes"] == "1,234,567"
    assert tables.cell("a_test", means.loc["PGD PINEAT-1/2", "a_test"]) == "0.9000"


def marks_of(name, **values):
    """Marks of one figure by title, where rows are given as letters: N, P0 ... P2 and D0, D1."""
    texts = {"N": NATURAL, **{f"P{i}": text for i, text in enumerate(PGD)}, **{f"D{i}": t for i, t in enumerate(DIST)}}
    runs = tabulated({texts[key]: {0: {name: value}} for key, value in values.items()})
    keys = dict(zip(runs["title"], values))
    return {keys[title]: mark for (title, figure), mark in tables.marks(runs).items() if figure == name}


def test_the_best_of_all_is_bold_and_the_best_of_a_group_underlined():
    marks = marks_of("a_test", N=0.95, P0=0.90, P1=0.91, D0=0.80, D1=0.70)
    assert marks == {"N": "bold", "P1": "underline", "D0": "underline"}


def test_less_leakage_is_better_and_a_group_of_one_has_no_best():
    marks = marks_of("p_max", N=0.60, P0=0.61, P1=0.55, D0=0.60, D1=0.58)
    assert marks == {"P1": "bold", "D1": "underline"}


def test_less_time_is_better():
    assert tables.marks(tabulated({PGD[0]: {0: {"seconds": 600}}, PGD[1]: {0: {"seconds": 60}}})) == {
        ("PGD AdvNat-1/1", "minutes"): "bold"
    }


def test_figures_that_print_alike_are_equally_good():
    marks = marks_of("r_test", N=0.1, P0=0.70001, P1=0.69999, P2=0.6, D0=0.5, D1=0.50001)
    assert marks == {"P0": "bold", "P1": "bold"}  # and neither of D: none is better
    assert marks_of("r_test", P0=0.7, P1=0.7) == {}


def test_a_table_shows_marks_and_the_papers_row_beneath_those_that_it_has():
    results = tabulated({NATURAL: {0: {"a_test": 0.8}}, PGD[0]: {0: {}, 1: {}}, PGD[2]: {0: {"a_test": 0.85}}})
    lines = cells_of(tables.markdown(results))
    paper = "*in the paper, at full scale*"
    assert [line["method"] for line in lines] == ["Natural", paper, "PGD Original", paper, "PGD PINEAT-1/2"]
    assert [line["seeds"] for line in lines] == ["1", "1", "2", "1", "1"]
    assert [line["A_test"] for line in lines] == ["0.8000", "0.9281", "**0.9000 ± 0.0000**", "0.9088", "0.8500"]
    assert lines[3]["minutes"] == "6.18 h" and lines[3]["gap attack"] == ""


def test_a_method_of_which_a_part_is_exchanged_is_not_in_the_paper():
    rows = plan.read(["sweep", "--flagfile=ablations_fmnist.flags", "--overlay=study.flags"], "").rows
    in_paper = [row.label for row in rows if paper.paper_row(row.configs[0])]
    assert in_paper == ["Original", "AdvNat-1/1", "AdvRan-1/1", "PINEAT-1/1"]


def test_verified_accuracy_has_a_column_where_a_run_has_it():
    plain, proved = ExperimentConfig(), ExperimentConfig(objective="mtl_ibp", verify=True)
    runs = tidy(("PGD", "plain", [(plain, {})]), ("PGD", "proved", [(proved, {"v_test": 0.625, "epsilon_spent": 3.5})]))
    lines = [[cell.strip() for cell in line.split("|")] for line in tables.markdown(runs).splitlines()]
    place = lines[0].index("V_test")
    assert [line[place] for line in lines[2:] if line[1] in ("PGD plain", "PGD proved")] == ["-", "0.6250"]
    assert lines[0][place + 1] == "privacy epsilon" and [line[place + 1] for line in lines[2:]][-1] == "3.5000"
    assert "V_test" not in tables.markdown(tidy(("PGD", "plain", [(plain, {})])))
    of_csv = pd.read_csv(io.StringIO(tables.csv_text(runs)))
    assert of_csv["v_test_mean"].isna().tolist() == [True, False]
    html = page.report(runs, title="", references=[])
    assert (
        ">0.6250<" in html
        and "<dt>V_test</dt>" in html
        and not re.search('[>"]nan', html.split("<tbody>")[1].split("</tbody>")[0])
    )


def test_csv_reads_back():
    quoted = 'PGD | Original, "3/4" | fmnist_pgd.flags --variant=original --ratio=2/1'
    results = tabulated({quoted: {0: {"a_test": 0.90}, 3: {"a_test": 0.92}}, PGD[2]: {1: {"a_test": 0.85}}})
    several, single = csv.DictReader(io.StringIO(tables.csv_text(results)))
    assert (several["group"], several["label"], several["seeds"]) == ("PGD", 'Original, "3/4"', "0 3")
    spread = [float(several[f"a_test_{part}"]) for part in ("mean", "sd", "low", "high")]
    assert spread == pytest.approx([0.91, 0.0141421, 0.91 - 0.127062, 0.91 + 0.127062], rel=1e-5)  # t is 12.7062
    assert float(several["minutes_mean"]) == 1.5 and float(several["noise_floor"]) == 0.505886
    assert float(several["paper_hours"]) == 6.18 and single["paper_hours"] == ""
    assert [single[f"a_test_{part}"] for part in ("mean", "sd", "low", "high")] == ["0.85", "", "", ""]


def test_rows_are_tested_in_their_group_by_p_values_adjusted_within_figure_and_reference():
    seeds = (0.01, 0.02, 0.04, 0.03)  # differences of a row from another are those of the factors, times these
    factors = {NATURAL: 9, PGD[0]: 0, PGD[1]: 1, PGD[2]: -2, DIST[0]: 0, DIST[1]: 3}
    noise = {text: (0.001 * i, -0.002 * i, 0.0, 0.003) for i, text in enumerate(factors)}
    figures = {
        text: {s: {"a_test": 0.5 + factor * seeds[s] + noise[text][s], "p_max": 0.6 + noise[text][s]} for s in range(4)}
        for text, factor in factors.items()
    }
    single = "PGD | Once | fmnist_pgd.flags --width=1"  # one pair has no p-value, and is no test to adjust for
    runs = tabulated(figures | {single: {1: {}}})
    found = tables.tests(runs, ["Original", "AdvNat-1/1"])
    original = ["PGD AdvNat-1/1", "PGD PINEAT-1/2", "PGD Once", "Dist PINEAT-1/1"]
    advnat = ["PGD Original", "PGD PINEAT-1/2", "PGD Once"]
    assert [*zip(found["title"], found["against"])] == [
        *((title, "Original") for title in (*original[:2], original[3], original[2])),
        *((title, "AdvNat-1/1") for title in advnat),
    ]
    for against, titles in (("Original", original), ("AdvNat-1/1", advnat)):
        of_reference = found[found["against"] == against].set_index("title")
        for name in tables.TESTED:
            tested = [title for title in titles if title != "PGD Once"]
            raw = [
                statistics.difference(runs, title, f"{title.split()[0]} {against}", name).p_value for title in tested
            ]
            assert [of_reference.loc[title, name].p_value for title in tested] == statistics.holm(raw)
            assert of_reference.loc["PGD Once", name].p_value is None


def test_a_table_of_differences_leaves_out_what_has_no_pair():
    results = tabulated({PGD[0]: {0: {}, 1: {}}, PGD[1]: {1: {"r_test": 0.75}}, PGD[2]: {3: {}, 1: {}}})
    first, second = cells_of(tables.tests_markdown(results, ["Original"]))
    assert (first["method"], first["against"], first["pairs"]) == ("PGD AdvNat-1/1", "Original", "1")
    assert (first["R_test"], first["p (R_test, Holm)"]) == ("+0.0500", "-")
    assert second["pairs"] == "1" and tables.tests_markdown(results, ["Natural"]) == ""


def test_runs_of_other_sweeps_alone_are_nothing_to_lay_out(tmp_path, capsys):
    row = parse(PGD[0])
    keep(tmp_path / "runs.csv", (row, row.configs[0], {}))
    assert main(["sweep", f"--row={PGD[1]}", f"--output_dir={tmp_path}", "--tables_only"]) == 2
    assert "which is nothing yet" in capsys.readouterr().err


def test_a_directory_of_other_flags_is_noticed_before_a_run(tmp_path, capsys):
    command = ["sweep", f"--row={PGD[1]}", "--overlay=smoke.flags", f"--output_dir={tmp_path}"]
    (config,) = plan.read(command, "").rows[0].configs
    other = dataclasses.replace(config, epsilon=0.25)
    directory = Path(f"{config.run_dir}.unfinished")
    directory.mkdir(parents=True)
    (directory / "run.flags").write_text(command_line.to_flags(other, without=("overwrite", "resume")))
    assert main(command) == 2
    err = capsys.readouterr().err
    assert "--epsilon differ. Name another --output_dir or --run_dir" in err
    assert not list(tmp_path.rglob("*.log"))


def test_places_that_cannot_be_written_are_noticed_before_a_run(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for name in ("output_dir", "runs_file"):
        places = [f"--output_dir={tmp_path / 'out'}", f"--{name}={tmp_path / 'file' / 'below'}"]
        assert main(["sweep", f"--row={PGD[1]}", "--overlay=smoke.flags", *places]) == 2
        assert "file" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.log"))


@pytest.mark.parametrize("ending", ["", ".unfinished"])
def test_what_changes_nothing_of_a_run_may_differ_when_a_sweep_goes_on(tmp_path, ending):
    def check(**changes):
        run = dataclasses.replace(config, **changes)
        executors._check_directories([executors.Job("run", run, "", "run")])

    config = ExperimentConfig(output_dir=str(tmp_path / "run"), export=())
    (tmp_path / f"run{ending}").mkdir()
    (tmp_path / f"run{ending}" / "run.flags").write_text(command_line.recorded_flags(config))
    check(checkpoint_seconds=7, paper_dataset="fmnist")
    with pytest.raises(ValueError, match="other flags: --seed differ. Name another --output_dir"):
        check(checkpoint_seconds=7, seed=1)
    with pytest.raises(ValueError, match="--export differ") if not ending else contextlib.nullcontext():
        check(export=("keras",))


# ---------------------------------------------------------------- the command

# 200 training images, 50 at once; a row's own flags come after the overlay. Enough rounds to be interrupted among.
FLAGS = "--network=mlp --export= --updates=400 --checkpoint_seconds=3600"
COMMAND = [
    f"--row=PGD | Original | quickstart.flags --variant=original {FLAGS}",
    f"--row=PGD | PINEAT-1/1 | quickstart.flags --variant=pineat {FLAGS}",
    "--overlay=smoke.flags", "--seeds=0-1", "--jobs=2", "--title=Smoke", "--name=smoke",
]  # fmt: skip
RUNS = [f"pgd-{name}-seed{seed}" for name in ("original", "pineat-1-1") for seed in (0, 1)]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--seeds=0"], "a sweep needs rows"),
        ([*COMMAND, "--jobs=0"], "`jobs`"),
        ([*COMMAND, "--executor=slurm"], "slurm"),
        ([*COMMAND, "--seeds=4-0"], "'4-0'"),
        ([*COMMAND, "--name="], "Received: ''"),
        ([*COMMAND, "--name=a/b"], "Received: 'a/b'"),
        ([*COMMAND, "--row=PGD | B | fmnist.flags --seed=3"], "--seed=3 cannot be set by a row"),
        ([*COMMAND, "--row=PGD | B | fmnist.flags --output_dir=x"], "--output_dir=x cannot be set by a row"),
        ([*COMMAND, "--reference=Original,Free"], "names no row by 'Free'; the labels of the rows are 'Original'"),
        ([*COMMAND, "--only=Dist *"], "'Dist *'"),
        ([*COMMAND, "--row=pgd | original | fmnist.flags"], "'pgd original' would both be 'pgd-original'"),
        ([*COMMAND, "--row=PGD | B | fmnist.flags --epsilon=-1"], "--epsilon=-1"),
        ([*COMMAND, "--sedes=0"], "sedes"),
        ([*COMMAND, "0-4"], "there is no use for ['0-4']"),
        (["--flagfile=nowhere.flags"], "nowhere.flags"),
    ],
)
def test_a_bad_command_is_refused_in_one_line(capsys, arguments, message):
    assert main(["sweep", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and message in err


def test_help_names_every_flag(capsys):
    assert main(["sweep", "--helpshort"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "python -m experiments.sweep" in out
    names = ("row", "overlay", "seeds", "only", "jobs", "executor", "dry_run")
    assert all(f"\n  --{name} (default: " in out for name in names)


def test_a_dry_run_prints_the_grid_with_its_cost_and_runs_nothing(tmp_path, capsys):
    assert main(["sweep", *COMMAND, f"--output_dir={tmp_path / 'out'}", "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "2 rows, 4 runs, of which 0 are done.\n" in out
    # 2 attack steps: a round of 1/0 has 3 gradient passes and 2 * 2 + 3 forward passes of each of 50 images, one of
    # 1/1 a gradient pass and 3 forward passes more; 400 and 200 rounds.
    assert f"4 runs to do: {2 * (400 * 3 + 200 * 4):,} gradient passes" in out
    assert [list(line.values()) for line in cells_of(out)] == [
        ["PGD Original", "2", "0", "400", f"{400 * 3:,}", f"{400 * 7 * 50:,}"],
        ["PGD PINEAT-1/1", "2", "0", "400", f"{200 * 4:,}", f"{200 * 10 * 50:,}"],
    ]
    assert not list(tmp_path.iterdir())


def test_a_dry_run_says_what_cannot_be_measured_and_why(tmp_path, capsys):
    missing = f"--row=A | Missing | --dataset=npz --data_dir={tmp_path / 'none.npz'}"
    arguments = [f"--output_dir={tmp_path / 'out'}", "--dry_run"]
    assert main(["sweep", missing, "--seeds=0,1", *arguments]) == 0
    out = capsys.readouterr().out
    assert "; 2 runs cannot be measured (" in out and "none.npz" in out and "measured speed" not in out
    assert main(["sweep", missing, *COMMAND, *arguments]) == 0
    out = capsys.readouterr().out
    assert "at the measured speed about" in out and "; 2 runs cannot be measured (" in out


def at_work(folder):
    """Ids of the processes whose arguments name the folder."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if str(folder) in line]


def test_a_run_that_hears_of_ctrl_c_from_the_terminal_and_then_from_the_sweep_keeps_its_checkpoint():
    stop = tracking.StopOnSignal(checkpoints=None)
    with stop.listening():
        for number in signal.SIGINT, signal.SIGTERM:
            os.kill(os.getpid(), number)
        assert stop.received == signal.SIGINT  # and no KeyboardInterrupt, which would end it at once


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores of a thread are Linux'")
def test_runs_at_once_have_cores_of_their_own_and_a_third_has_all(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    together = threading.Barrier(3)

    def cores(_):
        before = os.sched_getaffinity(0)
        with executors._share_of_the_machine(2):
            together.wait(PATIENCE)
            found = os.sched_getaffinity(0)
            together.wait(PATIENCE)
        return found, before == os.sched_getaffinity(0)

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        shares, restored = zip(*pool.map(cores, range(3)))
    first, second, whole = sorted(shares, key=len)
    assert all(restored) and whole == os.sched_getaffinity(0) == first | second
    assert len(whole) == 1 or not first & second


class Swept(NamedTuple):
    """A sweep that was ended by SIGTERM in the midst of its first runs, and then brought to its end."""

    out: Path
    kept: list[Path]
    stopped: tuple[int, str]
    left: list[int]
    finished: tuple[int, str]


def sweep(folder):
    """The command in this process: exit code, and what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(printed):
        return main(["sweep", *COMMAND, f"--output_dir={folder / 'out'}"]), printed.getvalue()


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder, over = tmp_path_factory.mktemp("swept"), threading.Event()

    def terminate():
        deadline = time.monotonic() + PATIENCE
        while not any(folder.glob("out/runs/*/history.csv")):  # a run has trained a pass
            assert time.monotonic() < deadline and not over.is_set()
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=terminate)
    sender.start()
    stopped = sweep(folder)
    over.set()
    sender.join()
    kept, left = list(folder.glob("out/runs/*.unfinished/checkpoints/ckpt-*.index")), at_work(folder)
    alone, names = executors.run, {RUNS[0], *(path.parents[1].stem for path in kept[:1])}

    def run_on(job, num):  # the first run and one that kept a checkpoint in processes of their own, the others here
        return (alone if Path(job.config.run_dir).name in names else run_here)(job, num)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executors, "run", run_on)
        return Swept(folder / "out", kept, stopped, left, sweep(folder))


def test_sigterm_ends_the_command_and_its_runs_which_keep_a_checkpoint(swept):
    code, printed = swept.stopped
    assert (code, swept.left) == (143, []) and swept.kept, printed
    assert printed.splitlines()[-1].startswith("interrupted: ")
    assert any("Going on from update" in path.read_text() for path in swept.out.glob("runs/*.log"))


def test_a_sweep_leaves_a_line_for_each_run_and_its_tables(swept):
    code, printed = swept.finished
    assert code == 0 and f"Tables and report are in {swept.out}." in printed
    runs = pd.read_csv(swept.out / "runs.csv").sort_values(["label", "flags.seed"])
    assert list(runs["group"] + " " + runs["label"]) == ["PGD Original"] * 2 + ["PGD PINEAT-1/1"] * 2
    for name, a_test in zip(RUNS, runs["a_test"]):
        assert a_test == json.loads((swept.out / "runs" / name / "metrics.json").read_text())["a_test"]
    text = (swept.out / "smoke.md").read_text()
    assert text.startswith("# Smoke\n") and "## Paired differences" in text
    table = pd.read_csv(swept.out / "smoke.csv").set_index("label")
    assert list(table["seeds"]) == ["0 1", "0 1"]
    assert table["a_test_mean"].to_dict() == pytest.approx(runs.groupby("label")["a_test"].mean().to_dict(), rel=1e-5)


def times_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_what_is_done_is_laid_out_and_not_run_again(swept, tmp_path, capsys):
    more = ["--seeds=0-2", f"--runs_file={swept.out / 'runs.csv'}", f"--output_dir={tmp_path}", "--tables_only"]
    assert main(["sweep", *COMMAND, *more]) == 0
    assert capsys.readouterr().out.startswith("2 rows, 6 runs, of which 4 are done.\nTables and report are in ")
    assert (tmp_path / "smoke.md").read_text() == (swept.out / "smoke.md").read_text()
    assert not (tmp_path / "runs").exists()
    before = times_of(swept.out / "runs"), (swept.out / "runs.csv").stat().st_mtime_ns
    assert main(["sweep", *COMMAND, f"--output_dir={swept.out}"]) == 0
    assert capsys.readouterr().out.startswith("2 rows, 4 runs, of which 4 are done.\nTables and report are in ")
    assert (times_of(swept.out / "runs"), (swept.out / "runs.csv").stat().st_mtime_ns) == before


def test_a_lost_run_is_taken_from_its_directory_and_one_that_fails_is_told(swept, capsys):
    runs = results.read_csv(swept.out / "runs.csv")
    lost = {"label": "Original", "flags.seed": 0}
    kept = [run for run in runs if any(run[name] != value for name, value in lost.items())]
    results.write(swept.out / "runs.csv", kept)
    before = times_of(swept.out / "runs")
    broken = f"--row=PGD | Broken | quickstart.flags --variant=pineat {FLAGS} --batch_size=1000"
    assert main(["sweep", *COMMAND, broken, "--seeds=0", f"--output_dir={swept.out}"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: 1 of 2 runs failed (pgd-broken-seed0: ")
    assert "`batch_size` must be at most the number of training images, 200" in error
    changed = {path.name for path, when in times_of(swept.out / "runs").items() if before.get(path) != when}
    assert changed == {f"{RUNS[0]}.log", "pgd-broken-seed0.log", "pgd-broken-seed0.error"}
    assert "finished already" in (swept.out / "runs" / f"{RUNS[0]}.log").read_text()
    assert len(results.Runs(swept.out / "runs.csv")) == len(kept) + 1 == 4
    assert list(pd.read_csv(swept.out / "smoke.csv")["label"]) == ["Original", "PINEAT-1/1"]


@pytest.mark.parametrize("executor", ["ray", "dask"])
def test_a_cluster_runs_what_processes_run(tmp_path, monkeypatch, swept, executor):
    pytest.importorskip({"ray": "ray", "dask": "distributed"}[executor])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    arguments = [*COMMAND, "--only=PGD Original", "--seeds=0", f"--executor={executor}"]
    arguments.append(f"--output_dir={tmp_path / 'out'}")
    assert main(["sweep", *arguments]) == 0
    (remote, local) = (results.Runs(folder / "runs.csv") for folder in (tmp_path / "out", swept.out))
    for config in plan.read(["sweep", *arguments], "").rows[0].configs:
        names = ("label", "a_test", "p_max", "machine.cores")
        assert [remote.find(config)[name] for name in names] == [local.find(config)[name] for name in names]


def test_a_cluster_that_is_not_installed_or_has_one_run_at_once_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["sweep", *COMMAND, f"--output_dir={tmp_path}", "--executor=ray"]) == 2
    assert "--executor=ray needs a package (" in capsys.readouterr().err
    assert main(["sweep", *COMMAND, f"--output_dir={tmp_path}", "--executor=dask", "--jobs=1"]) == 2
    assert "Give --jobs, at least 2" in capsys.readouterr().err
