"""Model utility: what the model still can, in one number (TOFU, arXiv 2401.06121)."""

import statistics
from collections.abc import Mapping
from numbers import Real

MEASURES = ("probability", "rouge", "truth_ratio")


def model_utility(parts: Mapping[str, Mapping[str, float]]) -> float:
    """Harmonic mean of {probability, rouge, truth_ratio} of every set: of nine for TOFU's three sets.

    parts: {set: {measure: value from 0 to 1}}. Returns 0 to 1; 0 when any part is 0. Raises ValueError for no set, a
    missing or unknown measure, or a value outside [0, 1].
    Source: TOFU, model utility.
    """
    if not parts:
        raise ValueError("model utility: expected at least one set, found none")
    values = []
    for name, measures in parts.items():
        if set(measures) != set(MEASURES):
            found = ", ".join(map(str, measures)) or "none"
            raise ValueError(f"model utility: {name}: expected exactly {', '.join(MEASURES)}, found {found}")
        for measure in MEASURES:
            value = measures[measure]
            if not (isinstance(value, Real) and 0 <= value <= 1):
                raise ValueError(f"model utility: {name}.{measure} = {value!r} is not between 0 and 1")
            values.append(float(value))
    return statistics.harmonic_mean(values)
