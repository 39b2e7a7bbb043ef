import pytest

from formicary.model.quantities import parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("5m", 300),
        ("2h", 7200),
        ("7d", 604800),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("1d2h3m4s5ms", 93784.005),
        ("0", 0),
        ("0s", 0),
        ("PT5M", 300),
        ("P1DT2H", 93600),
        ("PT0.5S", 0.5),
        ("P2W", 1209600),
    ],
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "5 m", "m", "5x", "-5s", "5m2h", "5m5m", "P", "PT", "P1M", "P1Y", "P1DT", "1e3s", "999999999999d"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no duration|longer than"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("10", 10),
        ("10B", 10),
        ("512k", 512_000),
        ("512K", 512_000),
        ("32Mi", 32 * 1024**2),
        ("1.5Gi", 1536 * 1024**2),
        ("1GB", 10**9),
        ("2TiB", 2 * 1024**4),
        ("1 GB", 10**9),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "k", "-1k", "1X", "1e3", "1kk", "1iB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no size"):
        parse_size(text)
