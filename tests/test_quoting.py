"""What users write, quoted in tables: CSV cells are no formulas, Markdown stays what it was."""

import csv
import io

import pytest
from made_up import tidy

from experiments.sweep import grid, tables
from pineat_tf.report import Markdown, markdown_table, quoted

FORMULAS = ["=1+1", "=cmd|' /C calc'!A0", "+SUM(A1)", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "-", "+", "-x"]
PLAIN = ["PINEAT-1/1", "", "a=1", "0.5", "-0.5", "+0.5", "-1e-4", "a-b", "1/0"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_cell_that_begins_like_a_formula_is_text(text):
    assert tables.csv_cell(text) == "'" + text


@pytest.mark.parametrize("text", PLAIN)
def test_other_cells_and_numbers_stay(text):
    assert tables.csv_cell(text) == text
    assert tables.csv_cell(-0.25) == -0.25 and tables.csv_cell(None) is None


@pytest.mark.parametrize(
    "text, shown",
    [
        ("a|b", "a\\|b"),
        ("a\\|b", "a\\\\\\|b"),
        ("`code`", "\\`code\\`"),
        ("**bold**", "\\*\\*bold\\*\\*"),
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("a < 3", "a < 3"),
        ("< 0.001", "< 0.001"),
        ("two\nlines\r\n", "two lines  "),
        ("n_fgsm PINEAT-1/1 ± 0.01", "n_fgsm PINEAT-1/1 ± 0.01"),
    ],
)
def test_markdown_shows_what_it_quotes(text, shown):
    assert quoted(text) == shown
    assert quoted(Markdown(text)) == text


def test_a_table_has_as_many_cells_as_its_rows_whatever_they_hold():
    nasty = "a|b`c`\n<b>\\|"
    table = markdown_table([("title|", "x"), (nasty, Markdown("**1**"))])
    lines = table.split("\n")
    assert len(lines) == 3 and lines[2].endswith(" | **1** |")
    unescaped = [line.replace("\\\\", "").replace("\\|", "").count("|") for line in lines]
    assert unescaped == [3, 3, 3]


def test_a_sweep_with_labels_that_mean_something_elsewhere_is_laid_out_as_text():
    label, group = '=HYPERLINK("x")', "@<b>`"
    text = f"{group} | {label} | fmnist_pgd.flags --variant=original"
    row = grid.parse_row(text, overlays=(), seeds=(0,), output_dir="r")
    runs = tidy((row.group, row.label, [(row.configs[0], {})]))
    (cells,) = csv.DictReader(io.StringIO(tables.csv_text(runs)))
    assert (cells["group"], cells["label"]) == ("'" + group, "'" + label)
    line = tables.markdown(runs).split("\n")[2]
    assert line.startswith('| @&lt;b>\\` =HYPERLINK("x") |')
