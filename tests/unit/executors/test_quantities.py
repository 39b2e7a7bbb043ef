import pytest

from executors.quantities import parse_cpu


@pytest.mark.parametrize(("text", "count"), [("2", 2.0), ("0.5", 0.5), ("500m", 0.5), ("1500m", 1.5)])
def test_processors_are_counted(text: str, count: float) -> None:
    assert parse_cpu(text) == count


@pytest.mark.parametrize("text", ["", "0", "0m", "-1", "1k", "half", "1 m", "nan", "1e3"])
def test_what_is_no_number_of_processors_says_what_would_be(text: str) -> None:
    with pytest.raises(ValueError, match="500m"):
        parse_cpu(text)
