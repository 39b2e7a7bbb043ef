"""The nearest valid word, for hints in errors."""

import difflib
from collections.abc import Collection

#: Looking for a near word costs time: among so many words at most.
_MAX_WORDS = 2000


def nearest(word: str, words: Collection[str]) -> str:
    """Returns ``did you mean "…"?`` with the word that is nearest, or nothing if none is near."""
    near = nearest_word(word, words)
    return f'did you mean "{near}"?' if near else ""


def nearest_word(word: str, words: Collection[str]) -> str:
    """Returns the word that is nearest, or nothing if none is near."""
    candidates = list(words)
    if len(candidates) > _MAX_WORDS:
        candidates = [each for each in candidates if abs(len(each) - len(word)) < 3 and each[:1] == word[:1]]
    by_fold = {each.casefold(): each for each in candidates[:_MAX_WORDS]}
    near = difflib.get_close_matches(word.casefold()[:100], by_fold, n=1, cutoff=0.6)
    return by_fold[near[0]] if near else ""
