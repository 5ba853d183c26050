"""Sources in object storage, against a real S3 server on loopback: read as files of this machine are, or refused."""

import gzip
import json
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest
from s3fs import S3FileSystem

from rlaif.data.files.sources import files_of, passed_over
from rlaif.data.rows import read_records, rows_in
from rlaif.errors import DataError
from rlaif.places import urls
from rlaif.seeds import seed_from
from tests.object_store import BUCKET, KEY_ID, SECRET, breaking, set_environment
from tests.unit.data.files.test_formats import COMPRESSORS, TWO_ROWS


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    monkeypatch.setattr(urls, "FIRST_WAIT_S", 0.01)


def prompts(source):
    return list(read_records(source, lambda row: row.fields["prompt"], pytest.fail))


def refusal(source, read=prompts):
    with pytest.raises(DataError) as error:
        read(source)
    message = str(error.value)
    assert "\n" not in message and KEY_ID not in message and SECRET not in message
    return message


def lines(num, width=1):
    return b"".join(json.dumps({"prompt": f"{seed_from(i)}" * width}).encode() + b"\n" for i in range(num))


# ---------------------------------------------------------------------------------------------------- what is read
@pytest.mark.parametrize("compression", COMPRESSORS)
@pytest.mark.parametrize("suffix", TWO_ROWS)
def test_every_format_is_read_as_it_is_and_compressed(object_store, suffix, compression):
    url = object_store.put(f"in/a{suffix}{compression}", COMPRESSORS[compression](TWO_ROWS[suffix]))
    assert prompts(url) == ["one", "two"]
    assert [(row.file, row.number) for row in rows_in(url)] == [(url, 1), (url, 2)]


def test_a_directory_is_read_by_the_rules_of_a_local_one(object_store, tmp_path):
    names = ["a.jsonl", "deep/b.ndjson", "C.JSON", "d.jsonl.gz", "._a.jsonl", ".hidden/x.jsonl", "_temporary/0/x.jsonl"]
    names += ["_SUCCESS", "README.md", "dataset_info.json", "notes.xlsx", "a.jsonl.bak", "x y/ü #1.jsonl"]
    for name in names:
        object_store.put(f"set/{name}", b'{"prompt": "x"}\n')
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b'{"prompt": "x"}\n')
    object_store.put("set/part-1.jsonl", b"")
    (tmp_path / "part-1.jsonl").touch()
    object_store.put("set/", b"")  # consoles make such a key for a directory
    url = object_store.url("set")
    local = [file.removeprefix(f"{tmp_path}/") for file in files_of(str(tmp_path))]
    assert files_of(url) == files_of(f"{url}/") == [f"{url}/{name}" for name in local]
    assert passed_over(url) == passed_over(str(tmp_path))
    assert [row.file for row in rows_in(url)] == files_of(url)


def test_a_whole_bucket_and_a_key_with_an_empty_part(object_store):
    object_store.put("a.jsonl", TWO_ROWS[".jsonl"])
    object_store.put("b//c.jsonl", TWO_ROWS[".jsonl"])
    assert files_of(f"s3://{BUCKET}") == [f"s3://{BUCKET}/a.jsonl"]
    assert passed_over(f"s3://{BUCKET}/") == ["b (not a file)"]


def test_patterns_and_choices_of_rows(object_store):
    for name in ("part-0.csv", "part-1.csv", "deep/part-2.csv", "other.csv", ".part-3.csv"):
        object_store.put(f"p/{name}", f"prompt\n{name}\n{name}\n".encode())
    url = object_store.url("p")
    assert files_of(f"{url}/part-*.csv") == [f"{url}/part-0.csv", f"{url}/part-1.csv"]
    assert files_of(f"{url}/**/part-[12].csv") == [f"{url}/deep/part-2.csv", f"{url}/part-1.csv"]
    assert [row.fields["prompt"] for row in rows_in(f"{url}/part-*.csv#2-3")] == ["part-0.csv", "part-1.csv"]
    assert len(list(rows_in(f"{url}#3"))) == 3


def test_splits_are_never_mixed_and_the_ways_to_name_one_work(object_store):
    for name in ("train-0.csv", "train-1.csv", "test.csv", "x/train-2.csv"):
        object_store.put(f"s/{name}", b"prompt\none\n")
    message = refusal(object_store.url("s"), files_of)
    ways = message.partition("name one: ")[2].split(" or ")
    assert ways == [f"{object_store.url('s')}/**/*train*", object_store.url("s/test.csv")]
    assert sum(len(files_of(way)) for way in ways) == 4


# -------------------------------------------------------------------------------------------------- what goes wrong
def test_what_is_not_there_is_named(object_store):
    object_store.put("a.jsonl", TWO_ROWS[".jsonl"])
    gone = object_store.url("b.jsonl")
    assert refusal(gone, files_of) == f"{gone}: no such file or directory"
    assert refusal(object_store.url("b-*.jsonl"), files_of).endswith(": no such file or directory")
    assert (
        refusal("s3://elsewhere/b.jsonl", files_of) == "s3://elsewhere/b.jsonl: cannot be read: there is no such bucket"
    )
    assert "there is no such bucket" in refusal("s3://elsewhere/*.jsonl", files_of)
    assert "ParamValidationError" in refusal("s3://Not_A!Bucket/b.jsonl", files_of)
    object_store.put("a.txt", b"x")
    assert "unknown kind of file" in refusal(object_store.url("a.txt"), files_of)


def test_denied_access_says_where_credentials_are_read_from(object_store, monkeypatch):
    url = object_store.put("d/a.jsonl", TWO_ROWS[".jsonl"])
    object_store.refuse_everyone()
    for source in (url, object_store.url("d"), object_store.url("d/*.jsonl")):
        message = refusal(source, files_of)
        assert message == (
            f"{source}: cannot be read: access is denied; credentials are read from "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from AWS_PROFILE"
        )
    set_environment(monkeypatch, object_store.endpoint)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "there are no credentials; they are read from AWS_ACCESS_KEY_ID" in refusal(url, files_of)


def test_credentials_of_a_profile_are_used_and_a_public_bucket_needs_none(object_store, monkeypatch, tmp_path):
    url = object_store.put("a.jsonl", TWO_ROWS[".jsonl"])
    object_store.files.chmod(f"{BUCKET}/a.jsonl", "public-read")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    S3FileSystem.clear_instance_cache()
    (tmp_path / "credentials").write_text(f"[books]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "ProfileNotFound: The config profile (nobody) could not be found" in refusal(url)
    S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_PROFILE", "books")
    assert prompts(url) == ["one", "two"]
    monkeypatch.delenv("AWS_PROFILE")
    S3FileSystem.clear_instance_cache()
    monkeypatch.setitem(fsspec.config.conf, "s3", {"anon": True})  # as FSSPEC_S3_ANON=true sets it
    assert prompts(url) == ["one", "two"]


def test_a_wrong_endpoint_is_tried_a_few_times(object_store, monkeypatch):
    set_environment(monkeypatch, "http://127.0.0.1:1")
    message = refusal(object_store.url("a.jsonl"), files_of)
    assert "failed 5 times (EndpointConnectionError: " in message
    assert message.endswith("; check the connection and AWS_ENDPOINT_URL")


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_a_connection_that_drops_is_taken_up_where_it_broke(object_store, monkeypatch, suffix):
    plain = lines(100_000)
    object_store.put(f"a{suffix}", gzip.compress(plain) if suffix.endswith(".gz") else plain)
    with breaking(object_store.endpoint, after=2**18, times=3) as line:
        set_environment(monkeypatch, line)
        read = prompts(object_store.url(f"a{suffix}"))
    assert read == [f"{seed_from(i)}" for i in range(100_000)]


def test_a_connection_that_keeps_dropping_is_named_with_its_row(object_store, monkeypatch):
    url = object_store.put("a.jsonl", lines(300_000))
    with breaking(object_store.endpoint, after=2**21, times=10**9) as line:
        set_environment(monkeypatch, line)
        message = refusal(url)
    start, _, cause = message.partition(" after row ")
    assert start == f"{url}: cannot be read"
    row, _, cause = cause.partition(": ")
    assert 1000 < int(row) < 300_000 and cause.startswith("failed 5 times (")


def test_a_file_that_is_replaced_while_it_is_read_is_refused(object_store):
    url = object_store.put("a.jsonl", lines(100_000))
    rows = rows_in(url)
    next(rows)
    object_store.put("a.jsonl", lines(100_001)[::-1])
    assert "the file was replaced while it was read" in refusal(rows, list)


# ---------------------------------------------------------------------------------------------------------- refused
@pytest.mark.parametrize(
    "url",
    [
        f"s3://{KEY_ID}:{SECRET}@{BUCKET}/a.jsonl",
        f"s3://{KEY_ID}:{SECRET}@{BUCKET}/a.jsonl#0",
        f"gs://{SECRET.replace('/', '')}@{BUCKET}/a.jsonl",
        f"https://user:{SECRET}@host/a.jsonl",
        f"ftp://user:{SECRET}@host/a.jsonl",
        f"hf://{SECRET.replace('/', '')}@datasets/a/b/a.jsonl",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url):
    message = refusal(url, files_of)
    assert message.startswith(f"{url.partition('://')[0]}://...: holds credentials")
    assert not any(part in message for part in (SECRET, "n0t", "aRealS3cret", "user"))


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("https://host/a.jsonl?X-Amz-Signature=abc", "https://...: has a query, which may hold a credential"),
        ("ftp://host/a.jsonl", "ftp://...: unknown kind of URL; use one of s3://"),
        ("simplecache::s3://books/a.jsonl", "unknown kind of URL"),
        ("https://host/*.jsonl", "the web has no listings; name each file"),
    ],
)
def test_other_urls_are_refused(url, cause):
    assert cause in refusal(url, files_of)


def test_a_missing_library_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as if it were not installed
    assert refusal("gs://books/a.jsonl", files_of) == (
        "gs://books/a.jsonl: gcsfs is needed for gs:// and is not installed; pip install gcsfs"
    )


# ------------------------------------------------------------------------------------------------------ the web, hf
class Ranges(SimpleHTTPRequestHandler):
    """A web server that gives parts of files, as those of data do; ``http.server`` gives whole ones."""

    def log_message(self, *args):
        pass

    def send_head(self):
        if "denied" in self.path:
            return self.send_error(403)
        wanted = self.headers.get("Range")
        if wanted is None or not self.server.gives_parts:
            return super().send_head()
        path = self.translate_path(self.path)
        try:
            file = open(path, "rb")  # noqa: SIM115, PTH123
        except OSError:
            return self.send_error(404)
        size = file.seek(0, 2)
        first, last = (int(part or size) for part in wanted.removeprefix("bytes=").split("-"))
        last = min(last, size - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        file.seek(first)
        self.wfile.write(file.read(last - first + 1))
        return file.close()


@pytest.fixture
def web(tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(tmp_path))) as server:
        server.gives_parts = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_file_of_the_web_is_read(web, tmp_path):
    address = f"http://127.0.0.1:{web.server_port}"
    for suffix in (".jsonl", ".parquet"):
        (tmp_path / f"a{suffix}").write_bytes(TWO_ROWS[suffix])
        assert prompts(f"{address}/a{suffix}") == ["one", "two"]
    (tmp_path / "large.csv.gz").write_bytes(gzip.compress(b"prompt\n" + b"".join(b"%d\n" % i for i in range(300_000))))
    assert len(prompts(f"{address}/large.csv.gz")) == 300_000
    assert refusal(f"{address}/gone.jsonl", files_of).endswith("gone.jsonl: no such file or directory")
    assert "access is denied; credentials are read from nowhere" in refusal(f"{address}/denied.jsonl", files_of)
    assert "failed 5 times (" in refusal("http://127.0.0.1:1/a.jsonl", files_of)


READING = """
import re, sys
from pathlib import Path
from rlaif.data.rows import rows_in
def peak():  # of this process alone; getrusage counts its parent until it was started
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
assert sum(1 for _ in rows_in(sys.argv[1])) == 10
before = peak()
print(sum(1 for _ in rows_in(sys.argv[2])), peak() - before)
"""


def test_a_large_file_streams(web, tmp_path):
    num, mib = 10_000, 2**20
    plain = lines(num, width=1000)
    assert len(plain) > 150 * mib
    (tmp_path / "ten.jsonl").write_bytes(lines(10))
    (tmp_path / "large.jsonl").write_bytes(plain)
    urls_of = [f"http://127.0.0.1:{web.server_port}/{name}.jsonl" for name in ("ten", "large")]
    told = subprocess.run([sys.executable, "-c", READING, *urls_of], capture_output=True, text=True, check=True).stdout
    count, grown = told.split()
    assert int(count) == num and float(grown) < 60  # MiB: a block of 8, as it comes, is joined and is parsed


def test_a_web_server_that_gives_whole_files_only_is_refused(web, tmp_path):
    web.gives_parts = False
    (tmp_path / "a.jsonl").write_bytes(lines(100_000))
    assert "does not give parts of files; download it" in refusal(f"http://127.0.0.1:{web.server_port}/a.jsonl")
