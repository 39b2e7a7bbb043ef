"""What a URL of an S3 store says, and what it must not say."""

import subprocess
import sys

import pytest

from formicary.artifacts.registry import make_store
from formicary.artifacts.s3 import S3Store
from formicary.artifacts.s3_options import S3Options, parse_options
from formicary.errors import InvalidInputError


def test_a_bucket_is_enough() -> None:
    assert parse_options("s3://my-bucket") == S3Options(bucket="my-bucket")
    assert isinstance(make_store("s3://my-bucket"), S3Store)


def test_all_options_are_read() -> None:
    url = (
        "s3://my.bucket/of%20us/deep/?endpoint=http://127.0.0.1:9000/&region=eu-central-1&patience_s=2.5&timeout_s=7"
        "&checksums=off&presign_endpoint=https%3A%2F%2Fs3.example.com"
    )
    assert parse_options(url) == S3Options(
        bucket="my.bucket",
        prefix="of us/deep/",
        endpoint="http://127.0.0.1:9000",
        presign_endpoint="https://s3.example.com",
        region="eu-central-1",
        patience_s=2.5,
        timeout_s=7.0,
        has_checksums=False,
    )


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://", "'' is no name of a bucket; write s3://bucket/prefix"),
        ("s3:///folder", "is no name of a bucket"),
        ("s3://x", "is no name of a bucket"),
        ("s3://buck et/", "is no name of a bucket"),
        ("s3://bucket:9000/", "is no name of a bucket"),
        ("s3://key:secret@bucket/", "set AWS_ACCESS_KEY_ID"),
        ("s3://bucket/a//b", "its prefix is none"),
        ("s3://bucket/../b", "its prefix is none"),
        ("s3://bucket/" + "x" * 101, "more than 100 bytes"),
        ("s3://bucket#part", "'#'"),
        ("s3://bucket?secret_key=s3cret", "unknown option 'secret_key'; known are checksums, endpoint"),
        ("s3://bucket?region=", "option region is empty"),
        ("s3://bucket?endpoint=localhost:9000", r"option endpoint must be http\[s\]://host:port"),
        ("s3://bucket?presign_endpoint=ftp://x", "option presign_endpoint must be"),
        ("s3://bucket?patience_s=soon", "number of seconds from 0 to 3600"),
        ("s3://bucket?patience_s=nan", "number of seconds"),
        ("s3://bucket?timeout_s=0", "option timeout_s must be a number of seconds from 0.1"),
        ("s3://bucket?checksums=maybe", "must be on or off"),
    ],
)
def test_what_is_wrong_is_said_with_what_would_be_right(url: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        make_store(url)
    assert "s3cret" not in str(caught.value)
    assert "key:secret" not in str(caught.value)


def test_a_driver_that_is_not_installed_is_named_with_the_way_to_get_it() -> None:
    code = (
        "import sys; sys.modules['aioboto3'] = None\n"
        "from formicary.artifacts.registry import make_store\n"
        "from formicary.errors import InvalidInputError\n"
        "try: make_store('s3://bucket')\n"
        "except InvalidInputError as error: print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stdout.strip() == "artifacts URL s3:// needs a driver: pip install 'formicary[s3]'", ended.stderr


def test_a_folder_as_store_loads_no_driver_of_s3() -> None:
    code = (
        "import sys\n"
        "from formicary.artifacts.registry import make_store\n"
        "make_store('file:///folder')\n"
        "print([name for name in sys.modules if name.startswith(('aioboto3', 'botocore'))])\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stdout.strip() == "[]", ended.stderr
