"""What training with Poisson-sampled batches and Gaussian noise guarantees, by the library `dp-accounting`."""

import functools
from collections.abc import Callable
from typing import Any

from pineat_tf.checks import check_count, check_part, check_positive, check_share

__all__ = ["epsilon", "noise_multiplier_for"]

_GRID, _FINE, _LARGEST = 1e-4, 100.0, 1e9
_ORDERS, _LESS = (*range(2, 65), 128, 256, 512, 1024), 0.75
_HOW = "pip install 'pineat_tf[dp]'"


def epsilon(*, noise_multiplier: float, sampling_rate: float, num_rounds: int, delta: float) -> float:
    """Computes the epsilon of (epsilon, delta)-differential privacy, for data sets that differ by one example more.

    Args:
        noise_multiplier: standard deviation of the noise as a multiple of the clipping norm, >= 0.
        sampling_rate: probability that an example is in a batch, in (0, 1].
        num_rounds: batches that were noised, >= 0.
        delta: probability with which the guarantee may fail, in (0, 1); well below one over the number of examples.

    Returns:
        The upper bound; `inf` without noise, 0 without rounds.

    Raises:
        ValueError: if an argument is out of its range.
        ImportError: if `dp-accounting` is not installed.

    Example:
        >>> round(epsilon(noise_multiplier=2.0, sampling_rate=0.01, num_rounds=4000, delta=1e-5), 2)
        1.31

    Reference:
        Koskela, Jaelkoe and Honkela, "Computing tight differential privacy guarantees using FFT", AISTATS 2020; Abadi
        et al., "Deep learning with differential privacy", CCS 2016.
    """
    check_noise_multiplier(noise_multiplier)
    _check_rates(sampling_rate, delta)
    check_count("num_rounds", num_rounds, 0, "It is how many batches were noised.")
    if not num_rounds:
        return 0.0
    if not noise_multiplier:
        return float("inf")
    return _epsilon(float(noise_multiplier), float(sampling_rate), int(num_rounds), float(delta))


def noise_multiplier_for(
    *, epsilon: float, sampling_rate: float, num_rounds: int, delta: float, tolerance: float = 1e-3
) -> float:
    """Finds the smallest noise multiplier that keeps training within a budget.

    Args:
        epsilon: the budget, > 0.
        sampling_rate: probability that an example is in a batch, in (0, 1].
        num_rounds: batches that will be noised, >= 1.
        delta: probability with which the guarantee may fail, in (0, 1).
        tolerance: how much larger than the smallest it may be.

    Returns:
        The noise multiplier; training by it spends at most `epsilon`.

    Raises:
        ValueError: if an argument is out of its range.
        ImportError: if `dp-accounting` is not installed.

    Example:
        >>> round(noise_multiplier_for(epsilon=1.31, sampling_rate=0.01, num_rounds=4000, delta=1e-5), 1)
        2.0
    """
    check_positive("epsilon", epsilon, "It is the privacy budget, e.g. 8.0.")
    check_positive("tolerance", tolerance, "It is how far above the smallest multiplier the result may be.")
    _check_rates(sampling_rate, delta)
    check_count("num_rounds", num_rounds, 1, "It is how many batches will be noised.")
    library, epsilon, delta = _library(), float(epsilon), float(delta)

    def excess(noise: float, accountant: Any) -> float:
        event = _event(library, noise, float(sampling_rate), int(num_rounds))
        return float(accountant.compose(event).get_epsilon(delta)) - epsilon

    # From the noise that quick and rough accounting wants: of far less, an exact one would fill the memory.
    largest = _enough(lambda noise: excess(noise, library.rdp.RdpAccountant(orders=_ORDERS)) <= 0)
    least = _LESS * largest
    while excess(least, _accountant(library, epsilon)) <= 0:
        largest, least = least, _LESS * least
    found = library.calibrate_dp_mechanism(
        lambda: _accountant(library, epsilon),
        lambda noise: _event(library, noise, float(sampling_rate), int(num_rounds)),
        epsilon,
        delta,
        library.ExplicitBracketInterval(least, largest),
        tol=float(tolerance),
    )
    return float(found)


def _enough(suffices: Callable[[float], bool]) -> float:
    """A number that suffices, as all above it do, of which nine tenths do not."""
    number = 1.0
    while not suffices(number):
        number *= 2
    while suffices(0.9 * number):
        number *= 0.9
    return number


_NOISE = "It is the noise's standard deviation as a multiple of the clipping norm; 0 for no noise and no guarantee."


def _check_rates(sampling_rate: float, delta: float) -> None:
    check_part("sampling_rate", sampling_rate, "It is the probability that an example is in a batch.")
    check_delta(delta)


def check_delta(delta: float) -> None:
    """Raises `ValueError` unless `delta` is a probability above 0."""
    hint = "It is the probability with which the guarantee may fail, e.g. 1e-5."
    check_positive("delta", delta, hint)
    check_share("delta", delta, hint)


def check_noise_multiplier(noise_multiplier: float) -> None:
    """Raises `ValueError` unless it is a number >= 0."""
    check_positive("noise_multiplier", noise_multiplier, _NOISE, or_0=True)


@functools.lru_cache(maxsize=256)
def _epsilon(noise_multiplier: float, sampling_rate: float, num_rounds: int, delta: float) -> float:
    library = _library()
    event = _event(library, noise_multiplier, sampling_rate, num_rounds)
    rough = float(library.rdp.RdpAccountant().compose(event).get_epsilon(delta))
    found = float(_accountant(library, rough).compose(event).get_epsilon(delta))
    if rough <= _FINE:
        return found
    return float(_accountant(library, found).compose(event).get_epsilon(delta))  # as fine as the result can be


def _accountant(library: Any, size: float) -> Any:
    """An accountant whose grid is fine for an epsilon of this size: the library's own, up to 100, is so for small ones.

    On that grid noise of .01 would need more memory than machines have. Coarse grids round up, so bounds stay bounds.
    """
    return library.pld.PLDAccountant(value_discretization_interval=_GRID * max(1.0, min(size, _LARGEST) / _FINE))


def _event(library: Any, noise_multiplier: float, sampling_rate: float, num_rounds: int) -> Any:
    noised = library.GaussianDpEvent(noise_multiplier)
    return library.SelfComposedDpEvent(library.PoissonSampledDpEvent(sampling_rate, noised), num_rounds)


def _library() -> Any:
    try:
        import dp_accounting
        import dp_accounting.pld
        import dp_accounting.rdp
    except ImportError as error:
        raise ImportError(f"The privacy accountant is the library dp-accounting: {_HOW}.") from error
    return dp_accounting
