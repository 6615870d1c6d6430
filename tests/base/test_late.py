"""Modules that are imported when they are first used."""

import subprocess
import sys

import pytest

from tif.base.late import Late


def test_nothing_is_imported_before_the_first_use():
    """`wave` stands for a large library; a dotted name stands for the module within its package."""
    script = (
        "import sys\n"
        "from tif.base.late import Late\n"
        "wave, dom = Late('wave'), Late('xml.dom')\n"
        "assert not {'wave', 'xml.dom'} & set(sys.modules)\n"
        "assert callable(wave.open) and 'wave' in sys.modules and 'xml.dom' not in sys.modules\n"
        "assert dom.Node.ELEMENT_NODE == 1 and 'xml.dom' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_it_gives_what_the_module_has():
    import math

    late = Late("math")
    assert late.sqrt is math.sqrt and late.sqrt is late.sqrt
    with pytest.raises(AttributeError, match="nothing"):
        _ = late.nothing


def test_a_module_that_is_not_there_is_told_when_it_is_used():
    late = Late("tif.not_there")
    with pytest.raises(ModuleNotFoundError, match=r"tif\.not_there"):
        _ = late.anything
