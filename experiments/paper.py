"""The paper's Table 1, and results laid out beside it."""

import functools
import pathlib
from collections.abc import Sequence

import pandas as pd

from experiments import command_line
from experiments.config import ExperimentConfig, names
from pineat_tf.membership import thresholds

COLUMNS = {
    "a_train": "A_train",
    "a_test": "A_test",
    "r_train": "R_train",
    "r_test": "R_test",
    "p_e_nat": "P_Enat",
    "p_e_adv": "P_Eadv",
    "p_max": "P_MAX",
    "hours": "hours",
}
"""Names of figures in metrics.json and the paper's table -> what the table calls them."""

_WITHOUT_RATIO = ("natural", "original")
_NUM_IMAGES = {"fmnist": (60_000, 10_000), "cifar10": (50_000, 10_000)}  # members and non-members


def paper_row(config: ExperimentConfig) -> dict[str, float] | None:
    """The row of Table 1 for the same data and method, at whatever scale, or None if there is none."""
    if not is_its_method(config) or (config.variant not in _WITHOUT_RATIO and str(config.round_ratio) != "1/1"):
        return None
    attack = "none" if config.variant == "natural" else config.attack
    return _table().get((dataset_of(config), attack, config.variant))


def is_its_method(config: ExperimentConfig) -> bool:
    """Whether a run is of a method as the paper has it, at whatever scale and ratio: no ablation of it, no addition.

    On the paper's data sets its attack has the paper's settings, and images of Fashion-MNIST are not augmented.
    """
    if any(getattr(config, name) != getattr(ExperimentConfig, name) for name in names(paper="default")):
        return False
    settings = _settings(dataset_of(config), config.attack)
    if settings is None:
        return True
    if dataset_of(config) == "fmnist" and (config.augment_pad or config.augment_flip):
        return False
    fixed = names(paper="attack") if config.variant != "natural" else ()
    return all(getattr(config, name) == getattr(settings, name) for name in fixed)


def dataset_of(config: ExperimentConfig) -> str:
    """The data set of the paper that a run is compared with."""
    return config.paper_dataset or config.dataset


def noise_floor(dataset: str) -> float:
    """What P_MAX of a network that leaks nothing would be on average, over all of the paper's images."""
    return thresholds.noise_floor(*_NUM_IMAGES[dataset], audits=2).mean


def results_table(results: Sequence[tuple[ExperimentConfig, dict]]) -> str:
    """Aligned plain text: a line a run, each followed by the paper's where there is one.

    Args:
        results: configs with the contents of their metrics.json.
    """
    columns = COLUMNS | ({"v_test": "V_test"} if any(config.verify for config, _ in results) else {})
    columns |= {"epsilon_spent": "epsilon"} if any(config.dp_noise for config, _ in results) else {}
    lines = [("", *columns.values())]
    for config, metrics in results:
        lines.append((label(config, metrics["data"]["name"]), *(_cell(name, metrics.get(name)) for name in columns)))
        row = paper_row(config)
        if row:
            lines.append(("  in the paper, at full scale", *(_cell(name, row.get(name)) for name in columns)))
    width = max(len(line[0]) for line in lines)
    table = "\n".join(f"{line[0]:{width}}" + "".join(f"{cell:>9}" for cell in line[1:]) for line in lines)
    sizes = {(m["data"]["num_members"], m["data"]["num_non_members"]) for _, m in results}
    floors = sorted({thresholds.noise_floor(*pair, audits=2) for pair in sizes})
    notes = [f"P_MAX without any leak, in-sample: {mean:.4f} (95 %: {upper:.4f})." for mean, upper in floors]
    return "\n".join([table, *notes])


def label(config: ExperimentConfig, data_name: str) -> str:
    """What to call a run in a table."""
    if config.variant == "natural":
        return " ".join(filter(None, (data_name, config.defence, "dp" if config.dp_noise else "", "natural")))
    ratio = "" if config.variant == "original" else f"-{config.round_ratio}"
    return f"{data_name} {config.method} {config.variant}{ratio}"


@functools.cache
def _settings(dataset: str, attack: str) -> ExperimentConfig | None:
    """What the flag file of the paper's settings says, if there is one."""
    if dataset not in _NUM_IMAGES or attack not in ("pgd", "dist", "diff"):
        return None
    (config,) = command_line.configs_of_seeds([f"--flagfile={dataset}_{attack}.flags"], [0])
    return config


@functools.cache
def _table() -> dict[tuple[str, str, str], dict[str, float]]:
    table = pd.read_csv(pathlib.Path(__file__).with_name("paper_table1.csv"), float_precision="round_trip")
    return table.set_index(["dataset", "attack", "variant"])[list(COLUMNS)].astype(float).to_dict("index")


def _cell(name: str, figure: float | None) -> str:
    if figure is None:
        return "-"
    return f"{figure:.2f}" if name == "hours" else f"{figure:.4f}"
