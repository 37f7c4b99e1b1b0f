"""Error replies as Discord words them, raised by the routes and written by the pipeline."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """A JSON error reply."""

    def __init__(self, status: int, code: int, message: str, errors: dict[str, Any] | None = None) -> None:
        super().__init__(f"{status} {code} {message}")
        self.status = status
        self.code = code
        self.message = message
        self.errors = errors

    def body(self) -> dict[str, Any]:
        """What the reply says."""
        body: dict[str, Any] = {"message": self.message, "code": self.code}
        if self.errors is not None:
            body["errors"] = self.errors
        return body


def not_found() -> ApiError:
    """No such route."""
    return ApiError(404, 0, "404: Not Found")


def unauthorized() -> ApiError:
    """No token, or not ours."""
    return ApiError(401, 0, "401: Unauthorized")


def unknown_guild() -> ApiError:
    """Not our guild."""
    return ApiError(404, 10004, "Unknown Guild")


def unknown_channel() -> ApiError:
    """Never there, or deleted."""
    return ApiError(404, 10003, "Unknown Channel")


def unknown_message() -> ApiError:
    """Never there, or deleted."""
    return ApiError(404, 10008, "Unknown Message")


def missing_access() -> ApiError:
    """The bot cannot see it."""
    return ApiError(403, 50001, "Missing Access")


def missing_permissions() -> ApiError:
    """The bot sees it and may not do that."""
    return ApiError(403, 50013, "Missing Permissions")


def too_large() -> ApiError:
    """A file above the limit."""
    return ApiError(413, 40005, "Request entity too large")


def empty_message() -> ApiError:
    """Neither content nor files."""
    return ApiError(400, 50006, "Cannot send an empty message")


def server_error() -> ApiError:
    """Something broke."""
    return ApiError(500, 0, "500: Internal Server Error")


def invalid_form(field: str, code: str, message: str) -> ApiError:
    """A request field (dots separate levels) with a wrong value."""
    errors: dict[str, Any] = {"_errors": [{"code": code, "message": message}]}
    for level in reversed(field.split(".")):
        errors = {level: errors}
    return ApiError(400, 50035, "Invalid Form Body", errors)
