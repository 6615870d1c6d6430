"""bench/speed/startup.py on a repository whose stages import little, and on this one."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "bench/speed/startup.py"
FILES = {
    "dvc.yaml": """
stages:
  plain: {cmd: python stages/plain.py, outs: [plain.txt]}
  late:
    foreach: [a, b]
    do: {cmd: "python stages/late.py ${item}", outs: ["${item}.txt"]}
""",
    # .5 seconds of work, which are no import, and then one whose modules take .3 seconds of CPU time and .2 of sleep
    "stages/plain.py": "from pathlib import Path\nPath('plain.txt').write_text('')\n",
    "stages/late.py": """
import sys, time
from pathlib import Path

def busy(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass

def main():
    busy(0.5)
    import outer
    Path(f"{sys.argv[1]}.txt").write_text(outer.__name__)
    sys.exit(0)

main()
""",
    "src/outer.py": "import importlib, __main__\n__main__.busy(0.2)\nimportlib.import_module('inner')\n",
    "src/inner.py": "import time, __main__\ntime.sleep(0.2)\n__main__.busy(0.1)\n",
}


@pytest.fixture
def checkout(tmp_path) -> Path:
    folder = tmp_path / "a checkout"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    shutil.copy(ROOT / "params.yaml", folder)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=folder, check=True)
    return folder


@pytest.fixture
def startup(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import startup

    return startup


def test_imports_count_wherever_they_are_and_work_does_not(startup, checkout):
    (found,) = startup.measure([checkout], repeats=2)
    assert list(found) == ["plain", "late"] or list(found) == ["late", "plain"]
    assert {len(values) for seconds in found.values() for values in seconds.values()} == {2}
    made = startup.summary(found)
    more = {key: made["late"][key] - made["plain"][key] for key in made["late"]}
    assert 0.3 < more["cpu_min"] < 0.45 and more["wall_min"] > 0.45
    assert 0 < made["plain"]["cpu_min"] < 0.3
    assert made["all"]["cpu"] == pytest.approx(made["late"]["cpu"] + made["plain"]["cpu"])


def test_medians_leasts_and_shares_by_hand(startup):
    """Medians 2 and 1 s of CPU, 4 and 4 s on the clock."""
    ours = startup.summary(
        {"x": {"cpu": [2.0, 1.0, 9.0], "wall": [4.0, 3.0, 5.0]}, "new": {"cpu": [1.0], "wall": [1.0]}}
    )
    theirs = startup.summary({"x": {"cpu": [4.0], "wall": [4.0]}})
    assert ours["x"] == {"cpu": 2.0, "cpu_min": 1.0, "wall": 4.0, "wall_min": 3.0}
    assert ours["all"] == {"cpu": 3.0, "cpu_min": 2.0, "wall": 5.0, "wall_min": 4.0}
    lines = [line.split() for line in startup.table([ours, theirs]).splitlines()]
    assert lines[1] == ["x", "2.00", "1.00", "4.00", "3.00", "|", "4.00", "4.00", "4.00", "4.00", "|", "0.50", "1.00"]
    assert lines[2] == ["new", "1.00", "1.00", "1.00", "1.00", "|"]
    assert [line.split() for line in startup.table([ours]).splitlines()][1] == lines[1][:5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--repeats", "0"], "--repeats must be at least 1"),
        (["--against", "."], "is no checkout of this repository: it has no dvc.yaml"),
    ],
)
def test_wrong_options(startup, monkeypatch, tmp_path, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["startup.py", *options])
    with pytest.raises(SystemExit, match="2"):
        startup.main()
    assert message in capsys.readouterr().err


def test_a_stage_that_fails_is_told(startup, checkout):
    (checkout / "stages/plain.py").write_text("raise ValueError('out of order')")
    with pytest.raises(SystemExit, match=r"(?s)dvc repro.*out of order"):
        startup.measure([checkout], repeats=1)


def test_every_stage_of_this_repository(checkout):
    """In turn with another; check, which needs no model, imports less than a stage that runs one."""
    command = [sys.executable, str(SCRIPT), "--repeats", "1", "--against", str(checkout), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    stages = {path.stem for path in (ROOT / "stages").glob("*.py")}
    assert set(found["this"]) == {*stages, "all"} and set(found["against"]) == {"plain", "late", "all"}
    assert found["this"]["check"]["cpu"] < found["this"]["evaluate"]["cpu"]
