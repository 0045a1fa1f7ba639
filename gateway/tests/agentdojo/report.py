"""The published table and the results it is made of."""

import collections
import csv
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = HERE / "results.csv"
TABLE = HERE.parents[2] / "docs/security-curve.md"
COLUMNS = ("way", "suite", "task", "injection", "kind", "asks", "good", "harm")
SUITES = ("workspace", "travel", "banking", "slack")
TITLES = {
    "open": "no gateway",
    "default": "**default policy**",
    "no-secrets": "default, `secret_data = false`",
    "approving": "default, a person approves all",
}
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def read() -> list:
    with RESULTS.open() as file:
        return [{**row, "asks": int(row["asks"]), "good": int(row["good"]), "harm": int(row["harm"])} for row in csv.DictReader(file)]


def write(rows: list) -> None:
    """Puts these results in the place of older ones of the same ways, and the figures between the marks of the page."""
    ways = {row["way"] for row in rows}
    rows = rows + [row for row in (read() if RESULTS.exists() else []) if row["way"] not in ways]
    rows.sort(key=lambda row: (list(TITLES).index(row["way"]), SUITES.index(row["suite"]), int(row["task"]), int(row["injection"] or -1)))
    with RESULTS.open("w", newline="") as file:
        out = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        out.writeheader()
        out.writerows(rows)
    text = TABLE.read_text()
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    TABLE.write_text(head + BEGIN + "\n" + figures(rows) + END + tail)


def check(rows: list) -> list:
    """What differs from the published results, and whether the page shows those."""
    known = {key(row): row for row in read()}
    wrong = []
    for row in rows:
        before = known.get(key(row))
        if before is None:
            wrong.append("%s: not among the published results" % " ".join(key(row)))
        elif any(row[column] != before[column] for column in ("asks", "good", "harm")):
            wrong.append("%s: published %s, now %s" % (" ".join(key(row)), said(before), said(row)))
    if figures(read()) not in TABLE.read_text():
        wrong.append("%s does not show results.csv" % TABLE.name)
    return wrong


def key(row: dict) -> tuple:
    return (row["way"], row["suite"], row["task"], row["injection"])


def said(row: dict) -> str:
    return "%d asked, task %s, attack %s" % (row["asks"], "done" if row["good"] else "not done", "succeeded" if row["harm"] else "failed")


def part(of: int, all: int) -> str:
    return "%d of %d (%.1f %%)" % (of, all, 100 * of / all) if all else "–"


def figures(rows: list) -> str:
    ways = [way for way in TITLES if any(row["way"] == way for row in rows)]
    lines = ["| | tasks done without a question | tasks done | questions a task | attacks that succeed unapproved | the same, our own scripts |", "|---|---|---|---|---|---|"]
    for way in ways:
        lines.append("| %s | %s |" % (TITLES[way], " | ".join(cells([row for row in rows if row["way"] == way]))))
    lines += ["", "By suite, under the default policy:", ""]
    lines += ["| suite | tasks done without a question | tasks done | questions a task | attacks that succeed unapproved | the same, our own scripts |", "|---|---|---|---|---|---|"]
    for suite in SUITES:
        lines.append("| %s | %s |" % (suite, " | ".join(cells([r for r in rows if r["way"] == "default" and r["suite"] == suite]))))
    left = collections.Counter((r["suite"], r["injection"]) for r in rows if r["way"] == "default" and r["kind"] == "pair" and r["harm"])
    lines += ["", "What still succeeds under the default policy, by injection:", ""]
    lines.append(", ".join("%s %s: %d" % (suite, injection, n) for (suite, injection), n in sorted(left.items())) or "nothing")
    return "\n".join(lines) + "\n"


def cells(rows: list) -> list:
    tasks = [row for row in rows if row["kind"] == "task"]
    pairs = [row for row in rows if row["kind"] == "pair"]
    ours = [row for row in rows if row["kind"] == "ours"]
    return [
        part(sum(row["good"] and not row["asks"] for row in tasks), len(tasks)),
        part(sum(row["good"] for row in tasks), len(tasks)),
        "%.2f" % (sum(row["asks"] for row in tasks) / len(tasks)) if tasks else "–",
        part(sum(row["harm"] for row in pairs), len(pairs)),
        part(sum(row["harm"] for row in ours), len(ours)),
    ]
