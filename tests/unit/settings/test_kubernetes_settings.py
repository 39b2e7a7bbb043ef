"""The settings of KUBERNETES that are sizes."""

import pytest

from formicary.ant_options import AntOptions, executor_options
from formicary.errors import InvalidInputError
from formicary.settings import load


@pytest.mark.parametrize(("text", "size_bytes"), [(None, 16 * 2**20), ("1.5GB", 1_500_000_000), ("off", 0)])
def test_the_size_from_which_files_go_straight_can_be_set(text: str | None, size_bytes: int) -> None:
    settings = load({"HOME": "/nowhere", **({"FORMICARY_KUBERNETES_DIRECT_FROM": text} if text else {})})
    assert executor_options(settings, AntOptions(), settings.home).kubernetes.direct_bytes == size_bytes


@pytest.mark.parametrize("text", ["0", "on", "-1"])
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(InvalidInputError, match="FORMICARY_KUBERNETES_DIRECT_FROM"):
        load({"HOME": "/nowhere", "FORMICARY_KUBERNETES_DIRECT_FROM": text})
