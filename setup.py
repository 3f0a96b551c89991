"""Installs pineat_tf and the experiments."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "pineat_tf" / "__init__.py").read_text()).group(1)

setup(
    name="pineat_tf",
    version=VERSION,
    description="Image classifiers that resist adversarial examples and membership inference at once, in Keras 3",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["pineat_tf", "pineat_tf.*", "experiments", "experiments.*"]),
    package_data={
        "pineat_tf": ["report.schema.json"],
        "experiments": ["flagfiles/*.flags", "paper_table1.csv"],
        "experiments.sweep": ["page.html", "page.js"],
    },
    install_requires=[
        # The floors are what the tests are run with at the oldest (BUILD_NOTES.md, "Versions").
        "tensorflow>=2.20",  # before, tensorflow-datasets finds a tensorflow-metadata that their protobuf cannot load
        "keras>=3.10",  # up to 3.8, updates under a LossScaleOptimizer are not counted
        "numpy>=1.26",
        "scikit-learn>=1.7",  # sample_weight of MLPClassifier.fit
        "scipy>=1.11",
        "absl-py>=1.4",
        "tqdm>=4.62",
        "filelock>=3.12",
        "h5py>=3.10",
        "matplotlib>=3.8",
        "pillow>=10.3",
        "jinja2>=3.1",
        "markupsafe>=2.1.1",
        "requests>=2.31",
        "plotly>=5.20",
        "tensorboard>=2.20",  # what tf.summary writes with; recent TensorFlow no longer brings it
        "tensorflow-datasets>=4.9.6",
        "importlib_resources>=5.12",  # tensorflow-datasets imports it without asking for it
        "etils>=1.9.1,<1.14; python_version < '3.11'",  # needed by tensorflow-datasets; later ones want Python 3.11
    ],
    extras_require={
        "test": ["pytest>=7.4", "pytest-cov>=4.1", "pytest-xdist>=3.5", "hypothesis>=6.100", "jsonschema>=4.18"],
        "ray": ["ray"],
    },
)
