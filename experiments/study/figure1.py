"""Draws Figure 1 of the paper and measures what it claims: that adversarial examples of an image cluster.

    python -m experiments.study.figure1 --flagfile=figure1_fmnist.flags --overlay=study.flags

Trains every row of the flag file once, by its first seed, and keeps the adversarial examples of some training images
after every pass: NAME.png, NAME.json and NAME.md in the output directory. Rows that are done are not trained again. The
pictures of tables (robustness against leakage, figures against ratios) are drawn by experiments.sweep.
"""

import sys

from experiments import command_line, cost, files
from experiments.study import clusters
from experiments.sweep import plan
from pineat_tf import accelerate
from pineat_tf.report import markdown_table, quoted


@command_line.program
def main(argv: list[str]) -> None:
    """Does what a command line says."""
    sweep = plan.read(argv, __doc__)
    if sweep is None:
        return
    paths = {row.title: sweep.output_dir / "examples" / f"{row.slug}.npz" for row in sweep.rows}
    missing = [row for row in sweep.rows if not clusters.is_recorded(row.configs[0], paths[row.title])]
    print(f"{len(sweep.rows)} rows, of which {len(missing)} are to be trained.")
    if missing and sweep.tables_only:
        raise ValueError(f"--tables_only draws what is done, and {missing[0].title!r} is not. Leave it out to train.")
    if sweep.dry_run:
        if missing:
            cost.print_estimate([row.configs[0] for row in missing])
        return
    sweep.output_dir.mkdir(parents=True, exist_ok=True)
    recorded = {}
    for row in sweep.rows:
        print(f"{row.title}:")
        recorded[row.title] = clusters.record(row.configs[0], paths[row.title])
    figures = {title: clusters.measure(of_row) for title, of_row in recorded.items()}
    base = sweep.output_dir / sweep.name
    clusters.write(f"{base}.png", recorded)
    files.write_json(
        f"{base}.json",
        {title: {name: value._asdict() for name, value in of_row.items()} for title, of_row in figures.items()},
    )
    names = list(next(iter(figures.values())))
    lines = [("method", *names)]
    for title, of_row in figures.items():
        lines.append((title, *(f"{of_row[name].mean:.3f} ± {of_row[name].sd:.3f}" for name in names)))
    table = markdown_table(lines)
    files.write_text(f"{base}.md", f"# {quoted(sweep.title)}\n\n{table}\n\n{_NOTE}\n")
    print(table)


_NOTE = (
    f"Mean ± standard deviation over {clusters.NUM_IMAGES} training images. Alignment: mean inner product of the "
    "noises of two passes over their mean squared length (1: always the same; 0: as random directions). Dispersion: "
    "mean squared distance of an image's examples from their centroid, with companions over without."
)


if __name__ == "__main__":
    accelerate.set_threads()
    sys.exit(main())
