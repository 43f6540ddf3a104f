"""The installed command; everything heavy is imported by the command that needs it."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    try:
        from .cli import main as run
    except KeyboardInterrupt:  # Ctrl+C while modules load
        raise SystemExit(130) from None

    run()


if __name__ == "__main__":
    main()
