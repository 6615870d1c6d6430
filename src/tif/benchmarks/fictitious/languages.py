"""The languages of the world, by the names that params.yaml gives them."""

from tif.benchmarks.fictitious.arabic import ARABIC
from tif.benchmarks.fictitious.chinese import CHINESE
from tif.benchmarks.fictitious.code import CODE
from tif.benchmarks.fictitious.english import ENGLISH
from tif.benchmarks.fictitious.language import Language

LANGUAGES: dict[str, Language] = {"en": ENGLISH, "zh": CHINESE, "ar": ARABIC, "code": CODE}
