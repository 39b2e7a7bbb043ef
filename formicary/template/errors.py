"""The errors of templates.

FormicaryError
└── TemplateError           a template is no valid one, or cannot be rendered with what is defined
Exception
└── LimitExceededError      inside the sandbox: a template does too much (translated to TemplateError at the edge)
"""

import msgspec
from jinja2.exceptions import TemplateRuntimeError

from formicary.errors import FormicaryError


class TemplateError(FormicaryError):
    """A template failed. ``path`` is where it stands, ``message`` says what is wrong and what is defined."""

    code = "ERR_TEMPLATE"

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path
        self.message = message


class TemplateMistake(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong in the text of a template; ``line`` counts from 1 within the text."""

    line: int
    message: str


class LimitExceededError(TemplateRuntimeError):
    """A template does more than it may."""


class NotAllowedError(TemplateRuntimeError):
    """A template reaches for something that the sandbox does not hand out."""
