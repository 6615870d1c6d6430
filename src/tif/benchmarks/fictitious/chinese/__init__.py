"""The world in Chinese."""

from tif.benchmarks.fictitious.chinese.framing import FRAMING
from tif.benchmarks.fictitious.chinese.lore import LORE
from tif.benchmarks.fictitious.chinese.phrasings import FACTS
from tif.benchmarks.fictitious.chinese.vocabulary import VOCABULARY
from tif.benchmarks.fictitious.language import Language

CHINESE = Language(
    VOCABULARY,
    FACTS,
    FRAMING,
    LORE,
    pronouns={"he": ("他", "她"), "his": ("他的", "她的"), "him": ("他", "她")},
)
