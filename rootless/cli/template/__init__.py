"""Go's text/template, as docker's --format needs it: `Template(text).execute(value)`. It prints nothing itself."""

from rootless.cli.template.evaluate import Row, Template
from rootless.cli.template.lexer import TemplateError

__all__ = ["Row", "Template", "TemplateError"]
