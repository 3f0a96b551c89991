"""Packages the library; the runner in `experiments/` is used from a clone, with the extra `experiments`."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "pineat_tf" / "__init__.py").read_text(encoding="utf-8")).group(1)
REPOSITORY_FILES = r"\]\((?!https?://|#)([^)]+)\)"


def long_description() -> str:
    """README.md without pictures and links into the repository, which do not resolve outside it."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"^!\[[^]]*\]\([^)]*\)\n\n?", "", text, flags=re.MULTILINE)
    return re.sub(r"\[([^]]+)" + REPOSITORY_FILES, r"\1", text)


# The floors are what the tests are run with at the oldest (BUILD_NOTES.md, "Versions").
LIBRARY = [
    "tensorflow>=2.20",  # before, tensorflow-datasets finds a tensorflow-metadata that their protobuf cannot load
    "keras>=3.10",  # up to 3.8, updates under a LossScaleOptimizer are not counted
    "numpy>=1.26",
    "scipy>=1.11",
    "scikit-learn>=1.7",  # sample_weight of MLPClassifier.fit
]
EXPERIMENTS = [
    "absl-py>=1.4",
    "tqdm>=4.62",
    "filelock>=3.12",
    "h5py>=3.10",
    "matplotlib>=3.8",
    "pillow>=10.3",
    "pandas>=2.2",
    "joblib>=1.4",
    "jinja2>=3.1",
    "markupsafe>=2.1.1",
    "requests>=2.31",
    "plotly>=5.20",
    "tensorboard>=2.20",  # what tf.summary writes with; recent TensorFlow no longer brings it
    "tensorflow-datasets>=4.9.6",
    "importlib_resources>=5.12",  # tensorflow-datasets imports it without asking for it
    "etils>=1.9.1,<1.14; python_version < '3.11'",  # needed by tensorflow-datasets; later ones want Python 3.11
]
TUNE = ["optuna>=5.0"]
TEST = [
    "dp-accounting>=0.4",
    "pytest>=7.4",
    "pytest-cov>=4.1",
    "pytest-xdist>=3.8",  # --no-loadscope-reorder
    "hypothesis>=6.100",
    "jsonschema>=4.18",
]
DOCS = [
    "mkdocs-material>=9.5",
    "mkdocstrings[python]>=0.27",
    "mkdocs-jupyter>=0.25",
    "nbmake>=1.5",
    "ipykernel",
    "matplotlib>=3.8",
]

setup(
    name="pineat_tf",
    version=VERSION,
    description="Image classifiers that resist adversarial examples and membership inference at once, in Keras 3",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    author="pineat_tf maintainers",
    license="MIT",
    license_files=["LICENSE"],
    keywords=["adversarial training", "membership inference", "robustness", "privacy", "keras", "tensorflow"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Intended Audience :: Developers",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (10, 11, 12, 13)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Security",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    packages=find_packages(include=["pineat_tf", "pineat_tf.*"]),
    package_data={"pineat_tf": ["report.schema.json", "py.typed"]},
    install_requires=LIBRARY,
    extras_require={
        "experiments": EXPERIMENTS,
        "test": EXPERIMENTS + TUNE + TEST,
        "docs": DOCS,
        "lint": ["ruff>=0.8", "mypy>=1.13", "vulture>=2.11"],
        "export": ["tf2onnx>=1.16", "onnx>=1.16", "onnxruntime>=1.18", "openvino>=2025.0", "ai-edge-litert>=1.4"],
        "dp": ["dp-accounting>=0.4"],
        "tune": TUNE,
        "ray": ["ray"],
        "dask": ["dask", "distributed"],
    },
)
