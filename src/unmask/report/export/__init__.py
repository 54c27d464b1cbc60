"""What other tools read: tables, Markdown, JUnit for continuous integration, SARIF for code review."""

from .junit import junit
from .markdown import markdown
from .sarif import sarif
from .tables import tables

__all__ = ["junit", "markdown", "sarif", "tables"]
