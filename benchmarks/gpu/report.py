"""All rows of a run in one file, and as one table."""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from declared import Part
from machine import card
from results import rows_of

Row = dict[str, Any]
UNFINISHED = "unfinished.json"
_LOG_BYTES = 1 << 20  # of each part, its end


@dataclasses.dataclass(frozen=True)
class Found:
    """What a run found: `facts` of the machine, `rows`, and the ends of the logs."""

    facts: Row
    rows: list[Row]
    log: str

    def keep(self, out: Path) -> None:
        """What there is so far, in case the run is ended from outside."""
        (out / UNFINISHED).write_text(json.dumps({"facts": self.facts, "rows": self.rows}))

    def write(self, out: Path, lines: Sequence[str]) -> None:
        """RUN-DEVICE-DATE.json, .md and .log.txt in `out`."""
        device = re.sub(r"[^a-z0-9]+", "-", self.facts.get("device", "unknown").lower()).strip("-")
        name = f"{self.facts['run']}-{device}-{self.facts['date']}"
        plain = {"facts": self.facts, "rows": self.rows}
        (out / f"{name}.json").write_text(json.dumps(plain, indent=1))
        (out / f"{name}.md").write_text("\n".join([*lines, ""]))
        (out / f"{name}.log.txt").write_text(self.log)
        (out / UNFINISHED).unlink(missing_ok=True)


def merged(scratch: Path, parts: Sequence[Part], platform: str, date: str, seconds: float) -> Found:
    """Everything that the parts left in `scratch`."""
    rows, log = [], []
    for part in parts:
        mine = rows_of(scratch / f"{part.name}.jsonl")
        rows += mine or [{"part": part.name, "what": part.name, "kind": "skipped",
                          "reason": "it was never started"}]  # fmt: skip
        file = scratch / f"{part.name}.log"
        text = file.read_text(errors="replace")[-_LOG_BYTES:] if file.exists() else ""
        log.append(f"==== {part.name}\n{text}")
    known = next((row for row in rows if row["what"] == "device"), {})
    facts = card() | {k: v for k, v in known.items() if k not in ("part", "what", "kind")}
    facts |= {"run": platform, "date": date, "seconds": round(seconds, 1)}
    return Found(facts, rows, "\n".join(log))


def failures(rows: Sequence[Row]) -> list[Row]:
    """Checks that failed, and what could not be done."""
    return [row for row in rows if row["kind"] == "failed" or not row.get("ok", True)]


def table(found: Found) -> list[str]:
    """The run as Markdown, a section a question, the verdict last."""
    facts, rows = found.facts, found.rows
    machine = ", ".join(f"{name} {value}" for name, value in facts.items())
    checks = [row for row in rows if row["kind"] == "check"]
    skipped = [row for row in rows if row["kind"] == "skipped"]
    bad = failures(rows)
    lines = [f"# {machine}", "", *_towers(rows), *_races(rows), *_others(rows)]
    if skipped:
        lines += ["", "Left out:", ""]
        lines += [f"- {row['part']}: {row['what']}: {row['reason']}" for row in skipped]
    passed = sum(row["ok"] for row in checks)
    lines += ["", f"{passed} of {len(checks)} checks passed; {len(bad)} rows failed."]
    lines += [f"- {row['part']}: {row['what']}: {_why(row)}" for row in bad]
    return lines


def _why(row: Row) -> str:
    return row["reason"] if "reason" in row else f"{row['value']:.3g}, at most {row['limit']:.3g}"


def _towers(rows: Sequence[Row]) -> list[str]:
    mine = [row for row in rows if row["part"] == "towers" and "per_second" in row]
    peak = max((row["flops_per_second"] for row in rows if row["what"] == "matmul peak"), default=0)
    if not mine or not peak:
        return []
    lines = [
        f"siglip_jax alone; bfloat16 matmuls reach {peak / 1e12:,.1f} TFLOP/s here",
        "",
        "| tower | batch | per second | of the peak | latency | compile | temporary |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in mine:
        share = row["flops_per_second"] / peak
        temporary = "" if row["temporary"] is None else f"{row['temporary'] / 1e6:,.0f} MB"
        lines.append(
            f"| {row['case']} | {row['batch']} | {row['per_second']:,.1f} | {share:.1%} "
            f"| {row['latency'] * 1e3:.2f} ms | {row['compile_seconds']:.1f} s | {temporary} |"
        )
    return lines


def _races(rows: Sequence[Row]) -> list[str]:
    lines: list[str] = []
    for part in ("beside", "choices", "training", "flags"):
        mine = [r for r in rows if r["part"] == part and r["kind"] == "measured" and "system" in r]
        latencies = {(r["case"], r["system"]): r["latency"] for r in mine if "latency" in r}
        mine = [row for row in mine if "per_second" in row]
        if not mine:
            continue
        lines += [
            "",
            f"{part}: in turns; the first of a case is so many times as fast as each",
            "",
            "| case | system | batch | per second | first is | latency of one | peak memory |",
            "|---|---|--:|--:|--:|--:|--:|",
        ]
        for row in mine:
            one = latencies.get((row["case"], row["system"]))
            memory = f"{row['peak'] / 1e9:.1f} GB" if row["peak"] else ""
            lines.append(
                f"| {row['case']} | {row['system']} | {row['batch']} | {row['per_second']:,.1f} "
                f"| {row['first_is_times_as_fast']:.2f} | {f'{one * 1e3:.2f} ms' if one else ''} "
                f"| {memory} |"
            )
    return lines


def _others(rows: Sequence[Row]) -> list[str]:
    """Parts whose rows are a line each."""
    lines: list[str] = []
    for part in ("transfer", "job", "profile", "lowered", "resume", "suite", "topology"):
        mine = [row for row in rows if row["part"] == part and row["kind"] == "measured"]
        mine = [row for row in mine if row["what"] != "device"]
        if mine:
            lines += ["", f"{part}:", ""]
            lines += [f"- {row['what']}: {_values(row)}" for row in mine]
    return lines


def _values(row: Row) -> str:
    values = {k: v for k, v in row.items() if k not in ("part", "what", "kind")}
    return ", ".join(
        f"{name} {value:,.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    )
