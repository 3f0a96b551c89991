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
        "tensorflow>=2.17",
        "keras>=3.5",
        "numpy",
        "scikit-learn",
        "scipy",
        "absl-py",
        "tqdm",
        "matplotlib",
        "jinja2",
        "plotly",
        "tensorboard",  # what tf.summary writes with; recent TensorFlow no longer brings it
        "tensorflow-datasets",
        "importlib_resources",  # tensorflow-datasets imports it without asking for it
        "etils<1.14; python_version < '3.11'",  # needed by tensorflow-datasets; later ones want Python 3.11
    ],
    extras_require={"test": ["pytest", "pytest-cov", "pytest-xdist", "hypothesis", "jsonschema"], "ray": ["ray"]},
)
