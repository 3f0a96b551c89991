"""Writes a network from a file in other formats: ONNX, LiteRT, 8 bits, OpenVINO, SavedModel.

    python -m experiments.convert RUN/network.keras --formats=onnx,litert_int8 --images=fmnist:train:200

--images are some of those that it was trained on, as experiments.audit takes them: 8 bits find the ranges of
activations by the first 200. Formats are those of --export of experiments.run.
"""

import pathlib
import sys

from absl import flags

from experiments import command_line, export, stored
from experiments.datasets import SOURCES, load_source
from pineat_tf.checks import check_choice


@command_line.program
def main(argv: list[str]) -> None:
    """Does what a command line says."""
    values = flags.FlagValues()
    own = {"flag_values": values}
    flags.DEFINE_list("formats", [], f"Out of {', '.join(export.FORMATS)}.", **own)
    flags.DEFINE_string("images", "", f"For 8 bits: {SOURCES}", **own)
    flags.DEFINE_string("output_dir", "", "Where files go; empty for the folder of the network.", **own)
    paths = command_line.arguments(values, argv, __doc__)
    if paths is None:
        return
    if len(paths) != 1 or not values.formats:
        raise ValueError("give one network, and --formats. See --help.")
    for name in values.formats:
        check_choice("formats", name, export.FORMATS)
    export.check_available(values.formats)
    images = load_source(values.images).images if values.images else None
    network = stored.load_network(paths[0])
    folder = pathlib.Path(values.output_dir or pathlib.Path(paths[0]).parent)
    for path in export.export(network, folder, values.formats, images=images):
        print(path)


if __name__ == "__main__":
    sys.exit(main())
