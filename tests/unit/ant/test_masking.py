"""Secrets are masked wherever the stream was cut."""

from hypothesis import given
from hypothesis import strategies as st

from formicary.ant.masking import MASK, Masker, mask_text, secret_bytes

_ALPHABET = st.sampled_from("ab\nx")
_SECRETS = st.lists(st.text(_ALPHABET, min_size=1, max_size=6), max_size=4)


def masked(chunks: list[bytes], secrets: tuple[bytes, ...]) -> bytes:
    masker = Masker(secrets)
    return b"".join(map(masker.feed, chunks)) + masker.finish()


def by_rule(text: bytes, secrets: tuple[bytes, ...]) -> bytes:
    """Says the same without any streaming: mark every byte of every occurrence, then replace the runs."""
    marks = [False] * len(text)
    for secret in secrets:
        for at in range(len(text) - len(secret) + 1):
            if text[at : at + len(secret)] == secret:
                marks[at : at + len(secret)] = [True] * len(secret)
    out = b""
    for at, is_marked in enumerate(marks):
        if not is_marked:
            out += text[at : at + 1]
        elif at == 0 or not marks[at - 1]:
            out += MASK
    return out


@given(st.lists(st.text(_ALPHABET, max_size=9), max_size=12), _SECRETS)
def test_chunks_make_no_difference(chunks: list[str], secrets: list[str]) -> None:
    pieces = [chunk.encode() for chunk in chunks]
    wanted = secret_bytes(secrets)
    assert masked(pieces, wanted) == by_rule(b"".join(pieces), wanted)


def test_a_secret_cut_in_single_bytes_does_not_show() -> None:
    assert masked([bytes([byte]) for byte in b"a hunter2 b"], secret_bytes(["hunter2"])) == b"a [MASKED] b"


def test_overlapping_secrets_leave_no_rest() -> None:
    assert masked([b"xabcdx"], secret_bytes(["abc", "bcd"])) == b"x[MASKED]x"


def test_a_secret_of_several_lines_is_masked_whole_and_line_by_line() -> None:
    secret = "-----BEGIN-----\nMIIEpAIBAAKCAQEA\nshort\n"
    secrets = secret_bytes([secret])
    assert masked([secret.encode()], secrets) == b"[MASKED]\n"
    assert masked([b"  MIIEpAIBAAKCAQEA  short"], secrets) == b"  [MASKED]  short"


def test_without_secrets_nothing_is_held_back() -> None:
    assert Masker(secret_bytes(["", "  "])).feed(b"anything") == b"anything"


def test_what_is_held_back_is_less_than_the_longest_secret() -> None:
    masker = Masker(secret_bytes(["s" * 100]))
    assert len(masker.feed(b"s" * 99)) == 0
    assert masker.feed(b"x") == b"s" * 99 + b"x"


def test_messages_are_masked_too() -> None:
    assert mask_text("password hunter2 is wrong", ["hunter2"]) == "password [MASKED] is wrong"
