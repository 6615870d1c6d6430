"""Learning an annotation: on the embedded benchmark against the gold spans, on TOFU against the published ones."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from tif.agreement.spans import agreement, agreement_difference
from tif.base import tables
from tif.base.errors import UserError
from tif.base.params import read, validate
from tif.benchmarks import SAMPLES, fictitious, tofu
from tif.identify import Resources, distilled, file, frequency, gold
from tif.words import SPANS, check_rows

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "tofu"
SETTINGS = {"vector": 8, "trees": 20, "learning_rate": 0.2, "leaves": 6, "folds": 2, "seed": 0}


def settings(annotation: Path, **changes) -> distilled.Settings:
    return distilled.Settings(annotation=str(annotation), **{**SETTINGS, **changes})


def groups_of(samples: pa.Table) -> dict[str, str]:
    return dict(zip(samples["sample_id"].to_pylist(), samples["group"].to_pylist(), strict=True))


@pytest.fixture(scope="module")
def world():
    """12 people, the last 6 to forget: the forget set, the retain set, and the gold rows of both."""
    size = {"people": 12, "questions": 18, "forget_share": 0.5, "holdout": 0, "real_authors": 1, "world_facts": 1}
    built, _ = fictitious.build(fictitious.Settings(seed=0, **size, language="en", entanglement=0.0), None)
    forget, retain = (pa.Table.from_pylist(built[name], schema=SAMPLES) for name in ("forget", "retain"))
    rows = [gold.identify(each, each, gold.Settings(), Resources()).rows for each in (forget, retain)]
    return forget, retain, *rows


@pytest.fixture(scope="module")
def annotation(world, tmp_path_factory):
    """The gold rows of the first three people of the forget set, as a spans table."""
    forget, _, rows, _ = world
    groups = groups_of(forget)
    known = sorted(set(groups.values()), key=list(groups.values()).index)[:3]
    path = tmp_path_factory.mktemp("annotation") / "spans.parquet"
    tables.write(path, [row for row in rows if groups[row["sample_id"]] in known], SPANS)
    return path


@pytest.fixture(scope="module")
def found(world, annotation):
    forget, retain, *_ = world
    return distilled.identify(forget, retain, settings(annotation), Resources())


def test_better_than_frequency_on_people_without_labels(world, annotation, found):
    forget, retain, rows, _ = world
    labelled = {row["sample_id"] for row in tables.read(annotation, SPANS).to_pylist()}
    groups = {name: group for name, group in groups_of(forget).items() if name not in labelled}
    other = frequency.identify(forget, retain, frequency.Settings(threshold=0.05), Resources()).rows
    ours, theirs, true = ([row for row in some if row["sample_id"] in groups] for some in (found.rows, other, rows))
    difference = agreement_difference(ours, theirs, true, groups).characters.f1
    assert len(set(groups.values())) == 3
    assert difference.value > 0.1 and difference.low > 0


def test_labelled_rows_keep_their_labels(annotation, found):
    labels = tables.read(annotation, SPANS).to_pylist()
    ids = {row["sample_id"] for row in labels}
    assert [row for row in found.rows if row["sample_id"] in ids] == labels
    assert found.counts["rows_labelled"] == len(ids) == 54 and found.copied == ids
    assert 0.5 < found.counts["held_out_f1"] <= 1


def test_rows_are_complete_and_scores_decide(world, found):
    forget, *_ = world
    responses = dict(zip(forget["sample_id"].to_pylist(), forget["response"].to_pylist(), strict=True))
    check_rows(found.rows, responses, "distilled")
    scored = [row for row in found.rows if row["score"] not in (0.0, 1.0)]
    assert len(scored) > 500
    assert all(row["unwanted"] == (row["score"] > found.counts["threshold"]) for row in scored)


def test_the_same_again(world, annotation, found):
    forget, retain, *_ = world
    assert distilled.identify(forget, retain, settings(annotation), Resources()) == found


def test_a_saved_model_labels_other_rows_as_it_did(world, annotation, found, tmp_path):
    forget, retain, *_ = world
    path = tmp_path / "identifier.json"
    path.write_text(json.dumps({"identifier": "distilled", **found.record}))
    again = distilled.identify(forget, retain.slice(0, 0), settings(path), Resources())
    ids = {row["sample_id"] for row in tables.read(annotation, SPANS).to_pylist()}
    assert [row for row in again.rows if row["sample_id"] not in ids] == [
        row for row in found.rows if row["sample_id"] not in ids
    ]


def test_no_feature_comes_from_the_rows_that_are_labelled_but_their_own_text(world, annotation, found):
    """One person fewer in the forget set changes nothing about the others."""
    forget, retain, *_ = world
    fewer = forget.slice(0, forget.num_rows - 18)
    less = distilled.identify(fewer, retain, settings(annotation), Resources())
    ids = set(fewer["sample_id"].to_pylist())
    assert less.rows == [row for row in found.rows if row["sample_id"] in ids]
    assert less.record == found.record


def test_labelled_retain_people_are_left_out_of_the_word_statistics(world, tmp_path):
    forget, retain, _, rows = world
    groups = groups_of(retain)
    known = sorted(set(groups.values()), key=list(groups.values()).index)[:3]
    path = tmp_path / "spans.parquet"
    tables.write(path, [row for row in rows if groups[row["sample_id"]] in known], SPANS)
    labelled = distilled.identify(forget, retain, settings(path), Resources())
    others = retain.filter(pa.array([group not in known for group in retain["group"].to_pylist()]))
    own = {sample["sample_id"]: sample for sample in retain.to_pylist() if sample["group"] in known}
    moved = pa.concat_tables([forget, pa.Table.from_pylist(list(own.values()), schema=SAMPLES)])
    expected = distilled.identify(moved, others, settings(path), Resources())
    assert labelled.record == expected.record


def test_the_order_of_the_samples_in_a_table_does_not_matter(world, annotation, found, tmp_path):
    forget, retain, *_ = world
    rows = tables.read(annotation, SPANS).to_pylist()
    turned = sorted(rows, key=lambda row: row["sample_id"], reverse=True)  # stable: words stay in order
    path = write(tmp_path / "turned.parquet", turned)
    assert distilled.identify(forget, retain, settings(path), Resources()).record == found.record


def test_json_lines_and_a_table_of_the_same_labels_give_the_same_model(world, annotation, found, tmp_path):
    forget, retain, *_ = world
    marked: dict[str, list[dict]] = {}
    for row in tables.read(annotation, SPANS).to_pylist():
        words = marked.setdefault(row["sample_id"], [])
        if row["unwanted"]:
            words.append({"word": row["text"], "start": row["start"], "end": row["end"]})
    lines = [
        {"question": sample["prompt"], "answer": sample["response"], "target_words": marked[sample["sample_id"]]}
        for sample in forget.to_pylist()
        if sample["sample_id"] in marked
    ]
    path = tmp_path / "words.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    again = distilled.identify(forget, retain, settings(path), Resources())
    assert (again.record, again.rows) == (found.record, found.rows)


def write(path: Path, rows: list[dict]) -> Path:
    tables.write(path, rows, SPANS)
    return path


def test_bad_input(world, annotation, found, tmp_path):
    forget, retain, rows, _ = world
    person = forget["sample_id"].to_pylist()[:18]
    one = [row for row in rows if row["sample_id"] in person]
    none = [{**row, "unwanted": False} for row in rows]
    marks = [{**row, "unwanted": row["text"] == "."} for row in rows]
    elsewhere = [{**row, "sample_id": row["sample_id"].replace("forget", "other")} for row in one]
    shifted = [{**row, "text": row["text"] + "x"} for row in one]
    (tmp_path / "model.json").write_text('{"model": {"version": "0"}}')
    (tmp_path / "text.json").write_text("{}")
    (tmp_path / "other.jsonl").write_text('{"question": "q", "answer": "a", "target_words": []}\n')
    cases = [
        ("data/none", "set distilled.annotation to a spans table"),
        (tmp_path / "nothing.parquet", "distilled.annotation = .*nothing is there"),
        (write(tmp_path / "one.parquet", one), "labels 18 rows of the forget and retain set, about 1 people"),
        (write(tmp_path / "none.parquet", none), "marks nothing, or everything"),
        (write(tmp_path / "elsewhere.parquet", elsewhere), "other/0000 is not a sample of the forget or retain set"),
        (write(tmp_path / "marks.parquet", marks), "marks nothing, or everything"),
        (tmp_path, "set distilled.annotation to a spans table"),
        (write(tmp_path / "shifted.parquet", shifted), "is not the next word of the answer"),
        (tmp_path / "other.jsonl", "labels 0 rows"),
        (tmp_path / "model.json", "the model has version '0', this code reads '1'"),
        (tmp_path / "text.json", "is not the data/identifier.json of a run with identify.method = distilled"),
    ]
    for source, message in cases:
        with pytest.raises(UserError, match=message):
            distilled.identify(forget, retain, settings(source), Resources())
    for number, change in enumerate(
        (
            lambda model: model["table"].pop(),
            lambda model: [row.pop() for row in model["table"]],
            lambda model: model["classifier"]["trees"][0]["value"].pop(),
            lambda model: model["classifier"]["trees"][0]["left"].__setitem__(0, 0),
            lambda model: model.update(threshold=float("nan")),
        )
    ):
        record = json.loads(json.dumps(found.record))
        change(record["model"])
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(record))
        with pytest.raises(UserError, match=r"is not the data/identifier\.json"):
            distilled.identify(forget, retain, settings(path), Resources())
    everyone = write(tmp_path / "all.parquet", gold.identify(retain, retain, gold.Settings(), Resources()).rows)
    with pytest.raises(UserError, match="labels every person of the retain set"):
        distilled.identify(forget, retain, settings(everyone), Resources())
    with pytest.raises(UserError, match=r"distilled\.learning_rate = 2\.0 is not allowed"):
        validate("distilled", {"annotation": "x", **SETTINGS, "learning_rate": 2.0}, distilled.Settings)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real TOFU files are not in ../shared/tofu")
def test_fitted_on_forget05_it_finds_the_published_words_of_the_other_people():
    """The 200 rows of forget10 that are not in forget05; settings were chosen by cross-validation inside forget05."""
    built, _ = tofu.build(tofu.Settings(forget="forget10", repository="locuslab/TOFU", revision="main"), REAL)
    forget, retain = (pa.Table.from_pylist(built[name], schema=SAMPLES) for name in ("forget", "retain"))
    shipped = read("distilled", distilled.Settings, ROOT / "params.yaml")
    block = shipped.model_copy(update={"annotation": str(REAL / "forget05_words_gpt.jsonl")})
    ours = distilled.identify(forget, retain, block, Resources())
    words = file.Settings(unwanted="target_words", punctuation=False)
    published = file.identify(forget, retain, words, Resources(REAL / "forget10_words_gpt.jsonl"))
    groups = groups_of(forget.slice(0, 200))
    ours, published = ([row for row in each.rows if row["sample_id"] in groups] for each in (ours, published))
    assert agreement(ours, published, groups).characters.f1.value > 0.68
