"""LanceDB tables in a real S3 server's bucket, with the login and the address that s3fs has."""

import logging
import os

import pytest
import s3_server

from siglip_jax.jobs.bucket import folder_at
from siglip_jax.search import open_embeddings
from siglip_jax.search.export import export

lancedb = pytest.importorskip("lancedb", reason="needs: pip install lancedb")
pytestmark = pytest.mark.usefixtures("compiled_once")
KEYS = [f"{n}.png" for n in range(11) if n not in (3, 8)]


@pytest.fixture(scope="module")
def server():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with s3_server.serving() as server:
        yield server


def opened(server, where):
    options = {"aws_endpoint": server.url, "allow_http": "true"}
    return lancedb.connect(where, storage_options=options).open_table("embeddings")


def test_a_table_in_a_bucket(server, jobs, expected):
    for name in ("parquet-float32", "npy-float32"):  # the second in the place of the first
        where = folder_at("s3://bucket/x.lance")
        assert export(open_embeddings(jobs / name), "lance", where) == 9
        table = opened(server, "s3://bucket/x.lance")
        assert table.to_arrow()["key"].to_pylist() == KEYS
    asked = table.search(expected[5]).distance_type("dot").where("width >= 20", prefilter=True)
    assert asked.limit(1).to_list()[0]["key"] == "5.png"


def test_what_fsspec_is_told_of_a_store(server, jobs, monkeypatch):
    """Where nothing else says it: neither the environment nor files."""
    import fsspec.config
    import s3fs

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        if name not in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            monkeypatch.delenv(name)
    told = {"key": "key", "secret": "secret", "endpoint_url": server.url}
    monkeypatch.setitem(fsspec.config.conf, "s3", told)
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        found = open_embeddings(jobs / "parquet-float32")
        assert export(found, "lance", folder_at("s3a://bucket/told")) == 9
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


def test_what_cannot_be_written(server, jobs):
    import s3fs

    found = open_embeddings(jobs / "parquet-float32")
    s3fs.S3FileSystem().pipe_file("bucket/photos/a.jpg", b"a")
    for form, where, said in (
        ("lance", "s3://bucket/photos", r"holds something else than such a table, as a\.jpg"),
        ("lance", "s3://none/x", "there is no bucket s3://none$"),
        ("lance", "memory://x", r"LanceDB writes to a folder here, or s3://\.\.\. or gs://"),
        ("faiss", "s3://bucket/x.faiss", "faiss is written to a disk, and lance to a bucket, too"),
    ):
        with pytest.raises(ValueError, match=said):
            export(found, form, folder_at(where))
    server.fault = lambda method, path: (
        (403, "AccessDenied", "Access Denied") if method in ("PUT", "POST") else None
    )
    with pytest.raises(ValueError, match=r"^s3://bucket/y: LanceDB could not write the t") as error:
        export(found, "lance", folder_at("s3://bucket/y"))
    assert "\n" not in str(error.value)
