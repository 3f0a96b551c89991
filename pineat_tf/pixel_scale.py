"""A look into a network: on which scale its first layers expect the pixels, and whether what it gets is on that scale.

Networks are looked at and never called: what cannot be seen from their first layers is not known.
"""

import warnings
from typing import Any, NamedTuple

import keras
import numpy as np

from pineat_tf.types import Bounds

__all__ = ["PixelScale", "warn_of_scale"]

# Layers that leave the scale of pixels as it is; with them all whose name begins with "Random".
_PASSING = {
    "CenterCrop", "Cropping1D", "Cropping2D", "Cropping3D", "Dropout", "Flatten", "GaussianNoise", "GetItem",
    "Identity", "InputLayer", "Permute", "Reshape", "Resizing", "SpatialDropout2D", "Stack", "Transpose",
    "ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D",
}  # fmt: skip
_ARITHMETIC = {
    "Add": np.add, "Subtract": np.subtract, "Multiply": np.multiply, "Divide": np.divide, "TrueDivide": np.divide,
}  # fmt: skip
# Images as networks process them span 1 to some 10. Below and above only another scale than was meant explains it.
_NARROW, _WIDE, _FAR = 0.04, 300.0, 10.0
_LITTLE_OF_BOUNDS = 0.01


class PixelScale(NamedTuple):
    """What the first layers of a network do to every pixel: `scale * pixel + offset`.

    Attributes:
        scale, offset: numbers; means over the channels, where they differ by channel.
        layers: names of the layers (Rescaling, Normalization, arithmetic, the preprocessing of Keras' applications).
    """

    scale: float
    offset: float
    layers: tuple[str, ...]

    @classmethod
    def of(cls, network: Any) -> "PixelScale | None":
        """Reads the layers from the first one up to where the scale of pixels ends; None if none of them rescales.

        Example:
            >>> network = keras.Sequential([keras.layers.Rescaling(1 / 127.5, offset=-1), keras.layers.Dense(10)])
            >>> PixelScale.of(network)
            PixelScale(scale=0.00784313725490196, offset=-1.0, layers=('rescaling',))
        """
        found, _ = _read(network, cls(1.0, 0.0, ()))
        return found if found.layers else None

    def fault(self, low: float, high: float) -> str | None:
        """What is wrong with pixels between `low` and `high`; None where they may well be meant."""
        ends = sorted(self.scale * end + self.offset for end in (low, high))
        width, middle = ends[1] - ends[0], abs(ends[0] + ends[1]) / 2
        if _NARROW <= width <= _WIDE and middle <= _FAR * width:
            return None
        return (
            f"the network begins with {' and '.join(self.layers)}, by which {low:.4g} to {high:.4g} becomes "
            f"{ends[0]:.4g} to {ends[1]:.4g}"
        )


def warn_of_scale(network: Any, *, bounds: Bounds | str | None = None, images: Any = None) -> None:
    """Warns where images, the pixel range of an attack and the first layers of the network do not fit each other.

    Args:
        network: a Keras model; of anything else nothing is seen.
        bounds: the pixel range of the attack; None, or "attack", says nothing.
        images: an array of images, or None where there are none to look at.
    """
    scale, bounds = PixelScale.of(network), None if isinstance(bounds, str) else bounds
    seen = None if images is None else _ends(images)
    fault = None
    if bounds is not None and seen is not None and seen[1] - seen[0] < _LITTLE_OF_BOUNDS * (bounds[1] - bounds[0]):
        fault = f"images from {seen[0]:.4g} to {seen[1]:.4g} fill little of the bounds [{bounds[0]:g}, {bounds[1]:g}]"
    for what, ends in (("bounds", bounds), ("images", seen)):
        if fault is None and scale is not None and ends is not None:
            fault = scale.fault(*ends) and f"of the {what}, {scale.fault(*ends)}"
    if fault:
        warnings.warn(
            f"Images, bounds and network may be on different scales: {fault}. Give images on the scale that the "
            "network was built for, and `bounds` and `epsilon` on that of the images, e.g. bounds=(0, 255) and "
            "epsilon=8 for a network that rescales by 1/255 itself.",
            UserWarning,
            stacklevel=3,
        )


def _read(network: Any, found: PixelScale) -> tuple[PixelScale, bool]:
    """The scale with that of the network's first layers; whether pixels are still pixels after all of them."""
    layers: Any = getattr(network, "operations", None) or getattr(network, "layers", ())
    for layer in layers:
        if getattr(layer, "layers", None):
            found, goes_on = _read(layer, found)
            if not goes_on:
                return found, False
        elif (line := _line(layer)) is not None:
            scale, offset = line
            names = (*found.layers, layer.name)
            found = PixelScale(scale * found.scale, scale * found.offset + offset, names)
        elif type(layer).__name__ not in _PASSING and not type(layer).__name__.startswith("Random"):
            return found, False
    return found, True


def _line(layer: Any) -> tuple[float, float] | None:
    """Scale and offset of a layer that is linear in every pixel; None of any other."""
    if isinstance(layer, keras.layers.Rescaling):
        return float(np.mean(layer.scale)), float(np.mean(layer.offset))
    if isinstance(layer, keras.layers.Normalization):
        return _line_of_normalization(layer)
    if isinstance(layer, keras.layers.Lambda):
        preprocess = layer.function  # run only where it is Keras' own
        is_keras = getattr(preprocess, "__module__", "").startswith("keras.src.applications")
        if is_keras and preprocess.__name__ == "preprocess_input":
            return _probe(lambda pixel: preprocess(np.full((1, 3, 3, 3), pixel, np.float32)))
    if type(layer).__name__ in _ARITHMETIC:
        return _line_of_arithmetic(layer)
    return None


def _line_of_normalization(layer: keras.layers.Normalization) -> tuple[float, float] | None:
    mean, variance = getattr(layer, "mean", None), getattr(layer, "variance", None)
    if mean is None or variance is None:  # not adapted yet
        return None
    mean, stddev = float(np.mean(mean)), float(np.sqrt(np.mean(variance)))
    if not stddev:
        return None
    return (stddev, mean) if layer.invert else (1.0 / stddev, -mean / stddev)


def _line_of_arithmetic(operation: Any) -> tuple[float, float] | None:
    """Of e.g. `inputs / 127.5`, as the functions of Keras' applications write themselves into a network."""
    nodes = getattr(operation, "_inbound_nodes", None)
    operands = nodes[0].arguments.args if nodes else ()
    if len(operands) != 2 or sum(isinstance(operand, keras.KerasTensor) for operand in operands) != 1:
        return None
    compute = _ARITHMETIC[type(operation).__name__]
    numbers = [operand if isinstance(operand, keras.KerasTensor) else np.asarray(operand) for operand in operands]
    return _probe(lambda pixel: compute(*(pixel if isinstance(n, keras.KerasTensor) else n for n in numbers)))


def _probe(function: Any) -> tuple[float, float]:
    at_0, at_1 = (float(np.mean(function(pixel))) for pixel in (0.0, 1.0))
    return at_1 - at_0, at_0


def _ends(images: Any) -> tuple[float, float] | None:
    """The smallest and largest pixel; None where they tell nothing of the scale."""
    try:
        low, high = float(np.min(images)), float(np.max(images))
    except (TypeError, ValueError):
        return None
    return (low, high) if np.isfinite(low + high) and low < high else None
