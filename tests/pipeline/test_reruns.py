"""docs/reruns.md: which stages an edit makes run again, read off dvc.yaml.

`python tests/pipeline/test_reruns.py` writes the page anew.
"""

import tempfile
from pathlib import Path

from dvc.repo import Repo

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/reruns.md"
TRAINING = {"finetune@target", "finetune@retain", "unlearn"}

# what is edited, its file, and whether a weight of a model can depend on it
EDITS = (
    ("the linter of spans", "agreement/lint.py", False),
    ("agreement with gold spans", "agreement/spans.py", False),
    ("the ranking of token scores", "agreement/ranking.py", False),
    ("ROUGE", "metrics/rouge.py", False),
    ("extraction strength, exact memorisation", "metrics/memorization.py", False),
    ("forget quality", "metrics/quality.py", False),
    ("model utility", "metrics/utility.py", False),
    ("the truth ratio, which `select: best` uses", "scores/truth_ratio.py", True),
    ("scoring: the forward pass", "scores/passes.py", True),
    ("greedy answers", "evaluation/generation.py", False),
    ("the template of the report", "report/template.html", False),
    ("the pictures of the report", "report/pictures.py", False),
    ("the memory plan", "plan/memory.py", False),
    ("the chosen method (tpo)", "methods/tpo.py", True),
    ("a method that is not chosen", "methods/npo.py", False),
    ("the chosen identifier (frequency)", "identify/frequency/__init__.py", False),
    ("an identifier that is not chosen", "identify/mlm/masked.py", False),
    ("the chat client of the identifier openai", "identify/openai/client.py", False),
    ("a benchmark that is not chosen", "benchmarks/tofu/__init__.py", False),
    ("the chosen benchmark (fictitious)", "benchmarks/fictitious/people.py", False),
    ("losses", "losses.py", True),
    ("checkpoints", "runs/checkpoints.py", True),
    ("the training loop", "training/loop.py", True),
    ("what a word is", "words.py", True),
    ("parameters, tables, errors", "base/tables.py", True),
)
KEYS = (
    ("a parameter of the method", "tpo.beta"),
    ("another method", "unlearn.method"),
    ("a parameter of the identifier", "frequency.threshold"),
    ("another identifier", "identify.method"),
    ("the benchmark", "fictitious.seed"),
    ("the model", "scratch.layers"),
    ("evaluation", "evaluate.retain_rows"),
    ("device and threads", "compute.threads"),
    ("progress bars, checkpoints", "runtime.progress"),
)


def stages() -> dict:
    """Stage name -> DVC stage, with the committed parameters."""
    with tempfile.TemporaryDirectory() as folder:
        for file in ("dvc.yaml", "params.yaml"):
            (Path(folder) / file).write_bytes((ROOT / file).read_bytes())
        Repo.init(folder, no_scm=True).close()
        with Repo(folder) as repo:
            return {stage.name: stage for stage in repo.index.stages}


def listing(found: dict, path: str) -> list[str]:
    """The stages that list a file of src/tif, or a folder that it is in, in the order of dvc.yaml."""
    file = f"src/tif/{path}"
    return [
        name
        for name, stage in found.items()
        if any(file == dep.def_path or file.startswith(f"{dep.def_path}/") for dep in stage.deps)
    ]


def reading(found: dict, key: str) -> list[str]:
    """The stages that depend on a key of params.yaml; the check depends on all of it."""
    keys = {key, key.split(".")[0]}
    params = {
        name: {one for dep in stage.deps if hasattr(dep, "params") for one in dep.params or keys}
        for name, stage in found.items()
    }
    return [name for name, some in params.items() if keys & some]


def page(found: dict) -> str:
    lines = [
        "# What runs again",
        "",
        "A stage runs again when a file, a folder of code or a parameter that it lists in dvc.yaml has changed.",
        "What follows it runs again only when its output has changed: a comment changes no output, and `check` never",
        "changes its own. What was computed before with the same inputs comes from the run cache, but for `measure`,",
        "which takes seconds. This page is made from dvc.yaml, for the default parameters, by",
        "`python tests/pipeline/test_reruns.py`; a test compares both, and tries some rows by real runs.",
        "",
        "| edit of | in src/tif | runs again |",
        "|---|---|---|",
    ]
    lines += [f"| {what} | `{path}` | {', '.join(listing(found, path)) or 'nothing'} |" for what, path, _ in EDITS]
    lines += ["", "| change of | key | runs again |", "|---|---|---|"]
    lines += [f"| {what} | `{key}` | {', '.join(reading(found, key))} |" for what, key in KEYS]
    return "\n".join(lines) + "\n"


def test_the_page_says_what_dvc_yaml_says():
    found = stages()
    assert PAGE.read_text() == page(found), "run `python tests/pipeline/test_reruns.py`"
    for what, path, changes_weights in EDITS:
        assert (ROOT / "src/tif" / path).is_file()
        if not changes_weights:
            assert not TRAINING & set(listing(found, path)), what
    assert listing(found, "agreement/lint.py") == ["identify"]
    assert listing(found, "metrics/rouge.py") == ["measure"]
    assert listing(found, "methods/npo.py") == listing(found, "identify/openai/client.py") == ["check"]
    assert listing(found, "report/template.html") == ["report"]
    assert reading(found, "tpo.beta") == ["check", "unlearn"]
    assert reading(found, "runtime.progress") == ["check"]


if __name__ == "__main__":
    PAGE.write_text(page(stages()))
