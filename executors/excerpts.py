"""Parts of what a task said, for messages. Pure.

Whoever gets a message masks the secrets in it, line by line where one has several, and recognises only what is whole.
So a text is cut between lines, never within one.
"""


def without_first_line(text: str) -> str:
    """Returns a text whose beginning is missing without its first line, of which a part may be missing."""
    return "".join(text.splitlines(keepends=True)[1:])


def without_last_line(text: str) -> str:
    """Returns a text whose end is missing without its last line, of which a part may be missing."""
    return "".join(text.splitlines(keepends=True)[:-1])


def last_lines(text: str, most_characters: int) -> str:
    """Returns the last lines that fit; the last one in any case."""
    while len(text) > most_characters and (rest := without_first_line(text)):
        text = rest
    return text
