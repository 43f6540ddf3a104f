"""What a failure of a processor means for a request: docs/FAILURES.md as a table."""

from __future__ import annotations

import enum

from peerchat.api import ApiError, ErrorCode


class Kind(enum.Enum):
    """What is to be done about it."""

    CAPACITY = "capacity"
    """No room just now. Wait; the processor is well."""
    ABSENT = "absent"
    """It has not what was asked for, or is leaving. Ask another; it is well."""
    HARD = "hard"
    """It failed. Ask another, and remember it."""
    FINAL = "final"
    """The request is at fault, or its time is over: nobody else is asked."""


KINDS: dict[ErrorCode, Kind] = {
    ErrorCode.BUSY: Kind.CAPACITY,
    ErrorCode.MODEL_MISSING: Kind.ABSENT,
    ErrorCode.NO_PROCESSOR: Kind.ABSENT,
    ErrorCode.STOPPED: Kind.ABSENT,
    ErrorCode.ENGINE_DOWN: Kind.HARD,
    ErrorCode.ENGINE_FAILED: Kind.HARD,
    ErrorCode.PEER_LOST: Kind.HARD,
    ErrorCode.TIMEOUT: Kind.HARD,
    ErrorCode.INTERNAL: Kind.HARD,
    ErrorCode.DHT_UNREACHABLE: Kind.HARD,
    ErrorCode.STORE_FAILED: Kind.HARD,
    ErrorCode.INVALID_REQUEST: Kind.FINAL,
    ErrorCode.UNAUTHORIZED: Kind.FINAL,
    ErrorCode.FORBIDDEN: Kind.FINAL,
    ErrorCode.RATE_LIMITED: Kind.FINAL,
    ErrorCode.CONFLICT: Kind.FINAL,
    ErrorCode.NO_AUTH: Kind.FINAL,
    ErrorCode.NO_GATEWAY: Kind.FINAL,
}


def kind_of(error: ApiError, *, is_continued: bool) -> Kind:
    """What a processor's failure means.

    Args:
        error: as it came.
        is_continued: the processor was to go on with another's answer; that it cannot
            is no fault of the request.
    """
    if is_continued and error.code is ErrorCode.INVALID_REQUEST:
        return Kind.ABSENT
    return KINDS[error.code]


def worst(failures: list[ApiError]) -> ApiError:
    """The failure to tell: an engine's own words say more than a lost connection."""
    lost = (ErrorCode.PEER_LOST, ErrorCode.TIMEOUT)
    telling = [one for one in failures if one.code not in lost]
    return (telling or failures)[-1]


def none_left(error: ApiError) -> ApiError:
    """The failure of a request of which nothing came.

    That a gateway lost its processors must not read as the loss of the gateway.
    """
    if error.code is ErrorCode.BUSY and error.retry_after_s is None:
        error.retry_after_s = 5
    if error.code is not ErrorCode.PEER_LOST:
        return error
    return ApiError(
        ErrorCode.NO_PROCESSOR,
        "Every processor that was asked was lost before it said anything; ask again.",
        status=503,
        retry_after_s=5,
    )
