"""The committed list of verdicts, and how a run differs from it.

A manifest is known by its digest. A refusal carries what the API server said, and a person's judgement of whether the
manifest could have worked: without one the list is not finished.
"""

import dataclasses
from pathlib import Path
from typing import Any

import yaml

LIST = Path(__file__).parent / "kaito-manifests.yaml"
ADMITTED, REFUSED = "admitted", "refused"
_HEAD = """\
# How kaito-hera judges the Workspaces, and ConfigMaps for them, in KAITO's own examples and manuals of every release.
# Written by `make conformance KAITO=... WRITE=yes`, except for `judged`: why it is right to refuse this one.
# `unreplaced`: what becomes of a manifest whose placeholders nobody replaced; its verdict is of it with values in them.
"""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the API server says of one manifest."""

    digest: str
    path: str
    tags: str
    kind: str
    says: str
    """Why it is refused; empty when it is admitted."""
    unreplaced: str = ""
    """The word for it as it stands, with placeholders; empty without any."""
    judged: str = ""

    @property
    def word(self) -> str:
        """One word for a table."""
        return REFUSED if self.says else ADMITTED

    def entry(self) -> dict[str, Any]:
        """As it stands in the list."""
        entry = {name: getattr(self, name) for name in ("digest", "path", "tags", "kind")} | {"verdict": self.word}
        if self.unreplaced:
            entry["unreplaced"] = self.unreplaced
        if self.says:
            entry |= {"says": self.says, "judged": self.judged}
        return entry


def read(file: Path = LIST) -> dict[str, Verdict]:
    """The list by digest; empty without a file."""
    entries = yaml.safe_load(file.read_text()) if file.exists() else []
    read_in = ("digest", "path", "tags", "kind", "says", "unreplaced", "judged")
    return {entry["digest"]: Verdict(**{name: entry.get(name, "") for name in read_in}) for entry in entries or []}


def write(found: list[Verdict], file: Path = LIST) -> None:
    """Write the list anew; judgements of refusals that were there are kept."""
    kept = read(file)
    lines = []
    for verdict in found:
        known = kept.get(verdict.digest)
        judged = known.judged if known and verdict.says else ""
        entry = dataclasses.replace(verdict, judged=judged).entry()
        lines.append(_line(entry))
    file.write_text(_HEAD + "".join(lines))


def differences(found: list[Verdict], listed: dict[str, Verdict]) -> list[str]:
    """One line for each; nothing when a run is as the list says and every refusal is judged."""
    told = []
    for verdict in found:
        known = listed.get(verdict.digest)
        if known is None:
            told.append(f"{verdict.path} ({verdict.tags}) is not listed; it is {verdict.word} {verdict.says}".rstrip())
        elif known.says != verdict.says:
            told.append(f"{verdict.path} ({verdict.tags}): now {_told(verdict)}; listed {_told(known)}")
        elif known.unreplaced != verdict.unreplaced:
            told.append(f"{verdict.path} ({verdict.tags}) unreplaced: now {verdict.unreplaced}; was {known.unreplaced}")
        elif verdict.says and not known.judged:
            told.append(f"{verdict.path} ({verdict.tags}): nobody has judged the refusal {verdict.says!r}")
    missing = listed.keys() - {verdict.digest for verdict in found}
    return told + [
        f"{listed[digest].path} ({listed[digest].tags}) is listed but not in this clone" for digest in missing
    ]


def _told(verdict: Verdict) -> str:
    return f"{verdict.word}: {verdict.says}" if verdict.says else verdict.word


def _line(entry: dict[str, Any]) -> str:
    """One line for what is admitted, several for what has something to say."""
    if "says" not in entry:
        return f"- {yaml.safe_dump(entry, sort_keys=False, width=10_000, default_flow_style=True)}"
    return yaml.safe_dump([entry], sort_keys=False, width=10_000, allow_unicode=True)
