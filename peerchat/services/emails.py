"""E-mail addresses in the one form that accounts are kept under."""

from __future__ import annotations

from peerchat.api import ApiError

from .messages import invalid

LOCAL_EMAIL = "local@localhost"
"""The account made without asking; it has no password and cannot be registered."""


def normal_email(email: str) -> str:
    """The address as it is kept.

    Raises:
        ApiError: 400 with what is wrong with it.
    """
    from email_validator import EmailNotValidError, validate_email

    try:
        # Names that only a private network knows are fine: so are its users.
        parsed = validate_email(
            email.strip(), check_deliverability=False, globally_deliverable=False
        )
    except EmailNotValidError as error:
        raise invalid(f"Invalid email: {error}") from None
    return parsed.normalized.lower()


def known_email(email: str) -> str:
    """The address to look an account up by; nonsense is nobody's, not an error."""
    try:
        return normal_email(email)
    except ApiError:
        return email.strip().lower()
