"""Text from files and command lines, which may hold what no file or picture can."""

from __future__ import annotations

from typing import Any


def encodable(text: str) -> str:
    """Lone surrogates, which UTF-8 has no bytes for, as their escapes; all other text as it is.

    They come from JSON, which may name them, and from file names that are not UTF-8.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def all_encodable(content: Any) -> Any:
    """The content of a JSON file, in which each text, those of keys as well, is `encodable`.

    Raises:
        RecursionError: it is nested too deeply.
    """
    if isinstance(content, str):
        return encodable(content)
    if isinstance(content, list):
        return [all_encodable(item) for item in content]
    if isinstance(content, dict):
        return {all_encodable(key): all_encodable(item) for key, item in content.items()}
    return content
