"""Commands that read from object storage and write to it, in process, against a real S3 server on loopback."""

import json

import pyarrow.parquet as pq
import pytest

from actors.cli.__main__ import main
from tests.object_store import KEY_ID, SECRET

NUM_PAIRS = 12


@pytest.fixture
def labelled(object_store, tiny_world, tmp_path):
    """A run directory of labels whose pairs came from a bucket."""
    rows = [{"prompt": f"q{i}", "answer_1": "yes", "answer_2": "no"} for i in range(NUM_PAIRS)]
    object_store.put("in/pairs.jsonl", "".join(json.dumps(row) + "\n" for row in [*rows, {"prompt": "q"}]).encode())
    object_store.put("in/notes.xlsx", b"x")
    chosen = ["labeller.engine=scripted", "--model", tiny_world["feedback"], "--in-process"]
    main_of("label", object_store.url("in"), "--out", str(tmp_path / "run"), *chosen)
    return tmp_path / "run"


def main_of(*arguments):
    with pytest.raises(SystemExit) as leaving:
        main(list(arguments))
    assert leaving.value.code in (0, None)


def refused(capfd, *arguments):
    with pytest.raises(SystemExit) as leaving:
        main(list(arguments))
    assert leaving.value.code == 2
    return " ".join(capfd.readouterr().err.split())


def test_labels_from_a_bucket_and_credentials_in_no_file_and_no_output(labelled, object_store, capfd):
    table = pq.read_table(labelled / "preferences" / "preferences.parquet")
    assert table.num_rows == NUM_PAIRS
    assert set(table["source_file"].to_pylist()) == {object_store.url("in/pairs.jsonl")}
    main_of("export", str(labelled), object_store.url("out"))
    said = capfd.readouterr()
    written = [path.read_bytes() for path in labelled.rglob("*") if path.is_file()]
    written += [object_store.get(key) for key in object_store.names()]
    written += [said.out.encode(), said.err.encode()]
    assert len(written) > 15 and any(b"s3://books/in" in text for text in written)
    for secret in (SECRET, KEY_ID):
        assert not any(secret.encode() in text for text in written)


def test_an_export_holds_the_tables_and_can_be_repeated(labelled, object_store, tmp_path, capfd):
    names = ["config.yaml", "constitution.json", "label_quality.json", "metrics.jsonl", "quarantine.jsonl"]
    names = sorted([*names, "comparisons/comparisons.parquet", "preferences/preferences.parquet"])
    names = [name for name in names if (labelled / name).exists()]
    assert "preferences/preferences.parquet" in names and "quarantine.jsonl" in names
    (labelled / "models" / "sl_cai").mkdir(parents=True)
    (labelled / "models" / "sl_cai" / "config.json").write_text("{}")
    for _ in range(2):
        main_of("export", str(labelled), object_store.url("out"))
        main_of("export", str(labelled), str(tmp_path / "out"))
    assert [key.removeprefix("out/") for key in object_store.names() if key.startswith("out/")] == names
    for name in names:
        content = (labelled / name).read_bytes()
        assert content == object_store.get(f"out/{name}") == (tmp_path / "out" / name).read_bytes()
    main_of("export", str(labelled), object_store.url("all"), "--models")
    assert object_store.get("all/models/sl_cai/config.json") == b"{}"
    capfd.readouterr()
    assert "is in the run directory" in refused(capfd, "export", str(labelled), str(labelled))
    assert "not a run directory" in refused(capfd, "export", str(tmp_path), object_store.url("out"))
    assert "there is no such bucket" in refused(capfd, "export", str(labelled), "s3://elsewhere/out")
    assert "holds credentials" in refused(capfd, "export", str(labelled), f"s3://{KEY_ID}:{SECRET}@books/out")
    assert "nothing can be written to the web" in refused(capfd, "export", str(labelled), "https://host/out")


def test_labels_and_audits_are_written_behind_urls(labelled, object_store, capfd):
    main_of(
        "reaggregate", str(labelled), "--out", object_store.url("new/labels.parquet"), "labelling.aggregation=prob_mean"
    )
    assert object_store.get("new/labels.parquet")[:4] == b"PAR1"
    main_of("audit", "export", str(labelled), "--out", object_store.url("judge"), "--rows", "5")
    assert [key for key in object_store.names() if key.startswith("judge/")] == ["judge/audit.csv", "judge/audit.html"]
    assert (labelled / "audit" / "key.json").is_file()
    capfd.readouterr()
    again = refused(capfd, "audit", "export", str(labelled), "--out", object_store.url("judge"))
    assert "s3://books/judge/audit.csv: exists" in again
    object_store.refuse_everyone()
    assert "access is denied" in refused(capfd, "reaggregate", str(labelled), "--out", object_store.url("new.parquet"))


def test_data_in_a_bucket_are_shown(object_store, capfd):
    object_store.put("in/a.jsonl", b'{"prompt": "How are you?"}\n{"no": 1}\n')
    object_store.put("in/notes.xlsx", b"x")
    main_of("data", object_store.url("in"))
    said = " ".join(capfd.readouterr().out.split())
    assert "How are you?" in said and "notes.xlsx (unknown kind of file)" in said
    for url, cause in (
        ("s3://books/gone.jsonl", "no such file"),
        ("s3://elsewhere/a.jsonl", "there is no such bucket"),
        (f"s3://{KEY_ID}:{SECRET}@books/a.jsonl", "holds credentials"),
    ):
        said = refused(capfd, "data", url)
        assert cause in said and SECRET not in said and KEY_ID not in said


def test_a_run_directory_in_a_bucket_is_refused_with_the_way_on(object_store, tiny_world, capfd):
    object_store.put("pairs.jsonl", b'{"prompt": "q", "answer_1": "yes", "answer_2": "no"}\n')
    chosen = ["--model", tiny_world["feedback"], "--in-process"]
    said = refused(capfd, "label", object_store.url("pairs.jsonl"), "--out", object_store.url("run"), *chosen)
    assert "a run directory cannot be in object storage" in said
    assert "rlaif export RUN_DIR s3://books/run" in said
