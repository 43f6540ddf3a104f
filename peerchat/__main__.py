"""The installed command; everything heavy is imported by the command that needs it."""

from __future__ import annotations

import gc

OBJECTS_BETWEEN_COLLECTIONS = 10_000
"""Python's own 700 lets a tenth of the start go into looking at modules' objects, all
of which stay."""


def main() -> None:
    """Run the command line."""
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS, *gc.get_threshold()[1:])
    try:
        from .cli import main as run
    except KeyboardInterrupt:  # Ctrl+C while modules load
        raise SystemExit(130) from None

    run()


if __name__ == "__main__":
    main()
