"""The report page: words around the numbers, and the HTML template filled in."""

import math
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tif.benchmarks import Set
from tif.metrics import MODELS
from tif.report.answers import Answer
from tif.report.epochs import LEVEL, Epoch, best_epoch
from tif.report.results import Results
from tif.report.weights import Weights

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def environment() -> Environment:
    """What fills in the templates of this folder."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(number=number, pvalue=pvalue, fact=fact)
    return made


def render(
    results: Results,
    epochs: list[Epoch],
    answers: list[Answer],
    identified: dict,
    card: dict,
    sets: dict[str, Set],
    weights: Weights | None,
) -> str:
    """The whole page as text.

    results: of the three models. identified, card: identify.json and card.json. sets: of the benchmark. weights: the
    token weights that were learned, or None.
    """
    from tif.report import pictures  # late, because matplotlib takes long to import

    details = results.details
    ratios = {model: np.array(list(results.values[model]["truth_ratio"].values())) for model in MODELS}
    return (
        environment()
        .get_template("template.html")
        .render(
            results={model: details[model] for model in MODELS},
            about=details["about"],
            headline=headline(details),
            best=best_epoch(epochs),
            last=epochs[-1],
            answers=answers,
            identified=identified,
            card={key: value for key, value in card.items() if key != "sets"},
            sets=sets,
            weights=weights,
            weights_picture=Markup(pictures.weights_picture(weights.epochs)) if weights else None,
            tradeoff=Markup(pictures.tradeoff(epochs)),
            epochs_picture=Markup(pictures.epochs_picture(epochs)),
            truth_ratios=Markup(pictures.truth_ratios(ratios)),
        )
    )


def headline(results: dict[str, dict]) -> str:
    """What happened, in two sentences: can the unlearned model be told from the retain model, and what did it cost.

    Without sets that make up model utility the second is left out.
    """
    target, unlearned = results["target"], results["unlearned"]
    before, after = target["forget_quality"], unlearned["forget_quality"]
    apart = after["pvalue"] < LEVEL
    was_apart = before["pvalue"] < LEVEL
    if was_apart:
        change = "can still" if apart else "can no longer"
    else:
        change = "can now" if apart else "cannot, as before,"
    told = (
        f"After unlearning, a statistical test {change} tell the model from one that never saw the {after['n']} forget "
        f"answers (forget quality {pvalue(after['log10_pvalue'])}, before {pvalue(before['log10_pvalue'])})."
    )
    if "model_utility" not in unlearned:
        return told
    kept = f"Its model utility is {number(unlearned['model_utility'])}"
    if target["model_utility"] > 0:
        share = unlearned["model_utility"] / target["model_utility"]
        return f"{told} {kept}, {100 * share:.0f} % of the target model's {number(target['model_utility'])}."
    return f"{told} {kept}; the target model's is 0."


def number(value: float) -> str:
    """Three decimals; a small number keeps two significant digits.

    0.61234 gives 0.612, 0 gives 0 and 0.00012 gives 1.2 × 10⁻⁴ (with no-break spaces).
    """
    if value == 0:
        return "0"
    if abs(value) < 0.001:
        sign = "−" if value < 0 else ""
        return sign + _scientific(math.log10(abs(value)))
    if abs(value) >= 1e6:
        return _scientific(math.log10(value))
    return f"{value:.3f}".replace("-", "−")


def pvalue(log10: float) -> str:
    """A p-value from its log10, so that it can be shown where a double underflows: -0.5 gives 0.316."""
    return number(10.0**log10) if log10 >= -3 else _scientific(log10)


def _scientific(log10: float) -> str:
    exponent = math.floor(log10)
    mantissa = f"{10 ** (log10 - exponent):.1f}"
    if mantissa == "10.0":
        mantissa, exponent = "1.0", exponent + 1
    no_break = "\N{NO-BREAK SPACE}"
    return f"{mantissa}{no_break}×{no_break}10{str(exponent).translate(_SUPERSCRIPT)}"


def fact(value: object) -> str:
    """A value of a JSON file for the reader."""
    if value is None:
        return "none"
    return number(value) if isinstance(value, float) else str(value)
