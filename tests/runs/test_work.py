"""The work folder."""

import pytest

from tif.base.errors import UserError
from tif.runs import work


def test_the_variable_decides(tmp_path, monkeypatch):
    monkeypatch.setenv("TIF_WORK", str(tmp_path / "here"))
    assert work.folder() == tmp_path / "here"
    assert (tmp_path / "here/.gitignore").read_text() == "*\n"


def test_a_relative_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("here", "./here", "~nobody-of-that-name/here"):
        monkeypatch.setenv("TIF_WORK", place)
        with pytest.raises(UserError, match=r"is relative, .* give a full path"):
            work.folder()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cache", [None, "../../shared cache"])
def test_beside_the_cache_of_dvc(tmp_path, monkeypatch, cache):
    """A repository as `dvc init --no-scm` and `dvc cache dir` leave it; a path in .dvc/config begins at its folder."""
    monkeypatch.delenv("TIF_WORK", raising=False)
    repo = tmp_path / "repo"
    (repo / ".dvc").mkdir(parents=True)
    (repo / ".dvc/config").write_text("[core]\n    no_scm = True\n" + f"[cache]\n    dir = {cache}\n" * bool(cache))
    monkeypatch.chdir(repo)
    assert work.folder() == (tmp_path / "tif-work" if cache else repo / ".dvc/tif-work")


def test_outside_of_a_repository(tmp_path, monkeypatch):
    monkeypatch.delenv("TIF_WORK", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="set TIF_WORK to a folder"):
        work.folder()
