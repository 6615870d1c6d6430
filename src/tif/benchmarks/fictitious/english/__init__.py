"""The world in English."""

from tif.benchmarks.fictitious.english.framing import FRAMING
from tif.benchmarks.fictitious.english.lore import LORE
from tif.benchmarks.fictitious.english.phrasings import FACTS
from tif.benchmarks.fictitious.english.vocabulary import VOCABULARY
from tif.benchmarks.fictitious.language import Language

ENGLISH = Language(
    VOCABULARY,
    FACTS,
    FRAMING,
    LORE,
    pronouns={"he": ("he", "she"), "his": ("his", "her"), "him": ("him", "her"), "himself": ("himself", "herself")},
)
