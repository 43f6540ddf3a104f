"""The help pages as sections, and a BM25 ranking of them for a question.

The ranking is Robertson and Zaragoza's "The Probabilistic Relevance Framework: BM25
and Beyond" (2009), formula 3.15, with the section's title counted several times.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

K1 = 1.2
B = 0.75
"""The usual values of BM25: saturation of term frequency, weight of length."""

TITLE_WEIGHT = 4
"""A word in the title says more about a section than one in its text."""

SCORE_MIN = 0.2
"""Below this, the words are in nearly every section and tell nothing."""

COVERAGE_MIN = 0.5
"""Share of the question's telling words that a section must have."""

RELATED_SHARE = 0.5
"""Sections with this share of the best score are named as related."""

QUESTION_WORDS_MAX = 200
"""Only the beginning of a long prompt is looked up; ranking stays fast."""

_STOP_WORDS = """
a about am an and any are as at be been but by can could did do does doing explain
for from get give had has have how i if in into is it its just know let like make me
more my need of off on one or our out please really should so some something tell
than that the their them then there these they thing this those to too u up us use
used using very want was we were what when where which who why will with without
would you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())

SYNONYMS = {
    "abort": "stop",
    "cancel": "stop",
    "computer": "machine",
    "credential": "password",
    "curl": "http",
    "device": "machine",
    "docker": "container",
    "env": "environment",
    "error": "trouble",
    "fail": "trouble",
    "fix": "trouble",
    "gpu": "processor",
    "hotkey": "key",
    "keyboard": "key",
    "laptop": "machine",
    "llama": "ollama",
    "llm": "model",
    "pc": "machine",
    "problem": "trouble",
    "prometheu": "metric",
    "quit": "stop",
    "quota": "limit",
    "rate": "limit",
    "rest": "http",
    "server": "serve",
    "setting": "configuration",
    "config": "configuration",
    "configure": "configuration",
    "setup": "install",
    "shortcut": "key",
    "signin": "login",
    "signup": "register",
    "throttle": "limit",
    "troubleshoot": "trouble",
    "troubleshooting": "trouble",
    "url": "http",
    "api": "http",
}

_WORD = re.compile(r"[a-z0-9_]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Section:
    """One answerable piece of a help page."""

    page: str
    title: str
    body: str
    keywords: str = ""
    """Words people use for it that the text does not have."""


def load_help() -> list[Section]:
    """Every section of the pages in this package, in the order of file names."""
    folder = resources.files(__package__) / "help"
    sections: list[Section] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".md"):
            sections.extend(parse_page(entry.read_text(encoding="utf-8")))
    return sections


def parse_page(text: str) -> Iterator[Section]:
    """Cut a page at its ``##`` headings; a ``Keywords:`` line is for the index only."""
    head, *parts = re.split(r"^## ", text, flags=re.MULTILINE)
    page = head.strip().removeprefix("#").strip().splitlines()[0]
    for part in parts:
        title, _, body = part.partition("\n")
        lines = body.strip().splitlines()
        keywords = ""
        if lines and lines[0].startswith("Keywords:"):
            keywords = lines.pop(0).removeprefix("Keywords:")
        yield Section(page, title.strip(), "\n".join(lines).strip(), keywords)


def words_of(text: str) -> list[str]:
    """The telling words of a text in a common form."""
    words = (w for w in _WORD.findall(text.lower()) if w not in STOP_WORDS)
    stems = (_stem(word) for word in words if len(word) > 1)
    return [SYNONYMS.get(stem, stem) for stem in stems]


def _stem(word: str) -> str:
    """Plural and -ing forms to one form; crude, but the same on both sides."""
    if len(word) > 5 and word.endswith("ing"):
        word = word.removesuffix("ing")
        if word[-1] == word[-2]:
            word = word[:-1]
    elif len(word) > 4 and word.endswith("ies"):
        word = word.removesuffix("ies") + "y"
    elif len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = word.removesuffix("s")
    return word


class HelpIndex:
    """Finds the sections that are about a question."""

    def __init__(self, sections: Sequence[Section]) -> None:
        self._sections = list(sections)
        self._counts = [Counter(_indexed_words(section)) for section in sections]
        self._lengths = [counts.total() for counts in self._counts]
        self._mean_length = sum(self._lengths) / max(1, len(self._lengths))
        holders = Counter(word for counts in self._counts for word in counts)
        total = len(self._sections)
        self._weights = {
            word: math.log(1 + (total - held + 0.5) / (held + 0.5))
            for word, held in holders.items()
        }

    @property
    def pages(self) -> list[str]:
        """The titles of the pages, in order."""
        return list(dict.fromkeys(section.page for section in self._sections))

    def search(self, question: str) -> list[Section]:
        """The best section first, then related ones; empty when nothing fits."""
        words = list(dict.fromkeys(words_of(question)[:QUESTION_WORDS_MAX]))
        scored = sorted(
            ((self._score(index, words), -index) for index in range(len(self._counts))),
            reverse=True,
        )
        if not scored or scored[0][0] < SCORE_MIN:
            return []
        best_score, best = scored[0]
        if self._coverage(-best, words) < COVERAGE_MIN:
            return []
        floor = best_score * RELATED_SHARE
        return [self._sections[-index] for score, index in scored if score >= floor]

    def _score(self, index: int, words: Iterable[str]) -> float:
        counts = self._counts[index]
        norm = K1 * (1 - B + B * self._lengths[index] / self._mean_length)
        return sum(
            self._weights[word] * counts[word] * (K1 + 1) / (counts[word] + norm)
            for word in words
            if word in counts
        )

    def _coverage(self, index: int, words: Sequence[str]) -> float:
        held = sum(1 for word in words if word in self._counts[index])
        return held / max(1, len(words))


def _indexed_words(section: Section) -> list[str]:
    heading = words_of(f"{section.title} {section.keywords}")
    return words_of(section.body) + words_of(section.page) + heading * TITLE_WEIGHT
