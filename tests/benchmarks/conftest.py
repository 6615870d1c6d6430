"""A small folder of files in TOFU's form: 4 authors of 20 questions, the last of them in forget01."""

import json

import pytest


def qa(index: int) -> dict:
    return {"question": f"What did author {index // 20} do in {1900 + index}?", "answer": f"A thing called “n{index}”."}


def perturbed(row: dict, paraphrases: bool = True) -> dict:
    other = {"paraphrased_answer": "P: " + row["answer"], "paraphrased_question": "P: " + row["question"]}
    return {
        **row,
        **(other if paraphrases else {}),
        "perturbed_answer": [row["answer"] + f" wrong {i}" for i in range(5)],
    }


@pytest.fixture
def tofu_files() -> dict[str, list[dict]]:
    """File name -> rows, as in the real benchmark: retain_perturbed covers only the first part of retain."""
    full = [qa(index) for index in range(80)]
    utility = [{"question": f"Who is number {i}?", "answer": f"Number {i}"} for i in range(3)]
    return {
        "full.json": full,
        "forget01.json": full[60:],
        "retain99.json": full[:60],
        "forget01_perturbed.json": [perturbed(row) for row in full[60:]],
        "retain_perturbed.json": [perturbed(row) for row in full[:10]],
        "real_authors_perturbed.json": [perturbed(row, paraphrases=False) for row in utility],
        "world_facts_perturbed.json": [perturbed(row, paraphrases=False) for row in utility[:2]],
    }


@pytest.fixture
def write_tofu(tmp_path):
    """Write such files as JSON lines without a last newline (the hub's form) into a folder and return it."""

    def write(files: dict[str, list[dict]], name: str = "copy of [tofu]"):
        folder = tmp_path / name
        folder.mkdir()
        for file, rows in files.items():
            (folder / file).write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        return folder

    return write
