"""README and docs say what there is: their commands, settings, links, paths and names exist."""

import copy
import re
import runpy
import shlex
import tomllib
from functools import cache
from itertools import pairwise, product
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tif.base.errors import UserError
from tif.base.params import read_all

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LONGEST_README = 9000  # characters: what a newcomer reads before the first run
check = runpy.run_path(str(ROOT / "stages/check.py"))["check"]

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SETTING = re.compile(r"([a-z0-9_]+)(\.[a-z0-9_]+)+(=\S+)?")
OUR_PATH = re.compile(r"(src|stages|bench|tests|docs)/[\w./-]+")
FLAGS_OF_RUN = {"-n": 1, "--queue": 0, "-S": 1}  # of `dvc exp run`, with the number of values
READING = {("exp", "show"), ("params", "diff"), ("metrics", "diff"), ("plots", "diff"), ("queue", "start")}


@cache
def params() -> dict:
    return read_all(ROOT / "params.yaml")


@cache
def yaml(path: str) -> dict:
    return YAML(typ="safe", pure=True).load((ROOT / path).read_text())


def commands(text: str) -> list[list[str]]:
    """The commands of the console blocks of a page, as words. Where lines begin with `$ `, the others are output."""
    found = []
    for language, block in BLOCK.findall(text):
        if language not in ("console", "sh", "bash", "shell"):
            continue
        lines = block.replace("\\\n", " ").splitlines()
        if any(line.startswith("$ ") for line in lines):
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        for line in lines:
            words = shlex.split(line, comments=True)
            while "&&" in words:
                found.append(words[: words.index("&&")])
                words = words[words.index("&&") + 1 :]
            found.append(words)
    return [words for words in found if words]


def wrong(words: list[str]) -> str | None:
    """What is wrong with a command, or None."""
    while re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    match words:
        case ["python", script, *options]:
            return wrong_script(ROOT / script, options)
        case ["make", target, *variables]:
            return wrong_target(target, variables)
        case ["dvc", "exp", "run", *options]:
            return wrong_experiment(options)
        case ["dvc", "repro", *stages]:
            return wrong_stages(stages)
        case ["dvc", "checkout"] | [".", ".venv/bin/activate"] | ["git", "clone", _, _] | ["cd", _]:
            return None
        case ["dvc", first, second, *_] if (first, second) in READING:
            return None
        case ["git", "checkout", *paths]:
            return next((f"no {path}" for path in paths if not (ROOT / path).exists()), None)
        case ["pip", "install", "-c", "constraints.txt", "-e", ".[test]"]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            return None if "test" in extras and (ROOT / "constraints.txt").exists() else "cannot be installed"
        case ["pytest", *_]:
            return None
    return "not a command that this test understands"


def wrong_script(script: Path, options: list[str]) -> str | None:
    """Of `python script options`: that there is none, or no such option, or no such group of the study."""
    if not script.is_file():
        return f"no {script.relative_to(ROOT)}"
    code = "".join(file.read_text() for file in script.parent.glob("*.py"))
    for option in options:  # which some scripts make from the defaults of a dataclass
        written = f'"{option}"', f"{option[2:].replace('-', '_')}="
        if option.startswith("--") and not any(text in code for text in written):
            return f"{script.name} has no {option}"
    if script.name == "study.py":
        groups = [word for word in options[1:] if re.fullmatch(r"[a-z_]+", word)]
        known = yaml("bench/study/grids.yaml")["groups"]
        return next((f"the study has no group {group}" for group in groups if group not in known), None)
    return wrong_settings(options)


def wrong_target(target: str, variables: list[str]) -> str | None:
    """Of `make target ARGS='...'`: that there is none, or what is wrong with the command that ARGS is for."""
    rule = re.search(rf"^{target}:.*\n(\t.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    if not rule:
        return f"no target {target}"
    script = re.search(r"python (\S+).*\$\(ARGS\)", rule[1])
    for name, _, value in (variable.partition("=") for variable in variables):
        if name != "ARGS" or not script:
            return f"make {target} takes no {name}"
        return wrong_script(ROOT / script[1], shlex.split(value))
    return None


def wrong_experiment(options: list[str]) -> str | None:
    rest, stages = list(options), []
    while rest:
        word = rest.pop(0)
        if word.startswith("-"):
            if word not in FLAGS_OF_RUN:
                return f"dvc exp run {word} is not known here"
            del rest[: FLAGS_OF_RUN[word]]
        else:
            stages.append(word)
    return wrong_stages(stages) or wrong_settings(options)


def wrong_stages(names: list[str]) -> str | None:
    stages = yaml("dvc.yaml")["stages"]
    known = set(stages) | {f"{name}@{key}" for name, stage in stages.items() for key in stage.get("foreach", ())}
    return next((f"no stage {name}" for name in names if name not in known), None)


def wrong_settings(options: list[str]) -> str | None:
    """Of `-S key=value` among options: that there is no such key, or what the stage check says of the value."""
    settings = [setting.partition("=") for flag, setting in pairwise(options) if flag == "-S"]
    values = [value.split(",") if "--queue" in options else [value] for _, _, value in settings]
    for chosen in product(*values):
        blocks = copy.deepcopy(params())
        for (key, _, _), value in zip(settings, chosen, strict=True):
            if not put(blocks, key, value):
                return f"params.yaml has no {key}"
        try:
            check(blocks)
        except UserError as error:
            return str(error)
    return None


def put(blocks: dict, key: str, value: str) -> bool:
    """Set a key such as tpo.beta to a value in YAML; whether there is such a key."""
    *path, last = key.split(".")
    for part in path:
        blocks = blocks.get(part) or {}
    known = last in blocks
    blocks[last] = YAML(typ="safe", pure=True).load(value)
    return known


def prose(text: str) -> str:
    return BLOCK.sub("", text)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def is_name(dotted: str) -> bool:
    """Whether `tif.module.name` is a module, or stands in one."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        base = ROOT / "src" / Path(*parts[:end])
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file():
                return all(re.search(rf"\b{part}\b", file.read_text()) for part in parts[end:])
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name if page.parent == ROOT else f"docs/{page.name}")
class TestPage:
    def test_commands(self, page):
        problems = {shlex.join(words): wrong(words) for words in commands(page.read_text())}
        assert not {command: problem for command, problem in problems.items() if problem}

    def test_links(self, page):
        broken = []
        for target in LINK.findall(CODE.sub("", prose(page.read_text()))):
            if re.match(r"https?://", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
                broken.append(target)
        assert not broken

    def test_settings_paths_and_names_in_the_text(self, page):
        problems = []
        for code in CODE.findall(prose(page.read_text())):
            setting = SETTING.fullmatch(code)
            if setting and setting[1] in params() and not code.endswith((".py", ".md")):
                if setting[3]:
                    problems.append(wrong_settings(["-S", code]))
                elif not put(copy.deepcopy(params()), code, ""):
                    problems.append(f"no {code}")
            if OUR_PATH.fullmatch(code) and not (ROOT / code).exists():
                problems.append(f"no {code}")
            if re.fullmatch(r"tif(\.\w+)+", code) and code != "tif.json" and not is_name(code):
                problems.append(f"no {code}")
            if code.startswith(("python ", "make ", "dvc ")):
                problems.append(wrong(shlex.split(code)))
        assert not [problem for problem in problems if problem]


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text()) <= LONGEST_README


def test_every_page_is_listed():
    listed = set(re.findall(r"^- \[.*?\]\((.+?)\)", (ROOT / "docs/README.md").read_text(), re.MULTILINE))
    assert listed == {page.name for page in PAGES[1:]} - {"README.md"}


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("python bench/none.py", "no bench/none.py"),
        ("OMP_NUM_THREADS=1 python stages/unlearn.py --plann", "has no --plann"),
        ("python bench/study/study.py run nothing", "no group nothing"),
        ("make nothing", "no target nothing"),
        ("make test ARGS=-v", "takes no ARGS"),
        ("make compare ARGS='-S distilled.trees=0'", "distilled.trees = 0 is not allowed"),
        ("dvc exp run -S tpo.bet=0.1", "has no tpo.bet"),
        ("dvc exp run -S tpo.beta=-1", "tpo.beta = -1 is not allowed"),
        ("dvc exp run -S unlearn.method=npo2", "unlearn.method = 'npo2' is unknown"),
        ("dvc exp run --queue -S tpo.beta=0.1,none", "tpo.beta = 'none' is not allowed"),
        ("dvc exp run -S unlearn.epochs=1e-5", "unlearn.epochs = 1e-05 is not allowed"),
        ("dvc exp run --dry", "--dry is not known"),
        ("dvc repro evaluate@none", "no stage evaluate@none"),
        ("git checkout params.yml", "no params.yml"),
        ("curl example.org", "not a command"),
    ],
)
def test_what_is_wrong_is_noticed(command, problem):
    ((*words,),) = commands(f"```console\n{command}\n```\n")
    assert problem in wrong(words)


def test_lines_without_a_prompt_are_output_where_others_have_one():
    text = "```console\n$ make test \\\n    ARGS=x && dvc repro   # twice\n3 passed\n```\n```python\nimport os\n```\n"
    assert commands(text) == [["make", "test", "ARGS=x"], ["dvc", "repro"]]
