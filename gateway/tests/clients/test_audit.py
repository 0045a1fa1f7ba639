"""Whoever changes the log with SQL is found out, and where."""

import re
import shutil
import sqlite3
import subprocess
import threading

import pytest

from driver import BIN, Gateway, group, stand_in, wait_for
from mcp_http import call, send

WRITES = {"public_source": False, "secret_data": False, "public_sink": False, "dangerous_writes": True}


@pytest.fixture(scope="module")
def history():
    """A stopped gateway with a log of every kind of record."""
    gate = Gateway()
    gate.configure(stand_in(gate.scratch, "odd", WRITES, {"echo": {"read_only": True}, "die": {"read_only": True}}), group("dev", ["odd"]))
    gate.up()
    try:
        token = gate.token("dev")
        for number in range(3):
            assert call(gate, token, "odd__echo", {"text": "number %d" % number}).text == "number %d" % number
        assert call(gate, token, "odd__die").result["isError"]
        for decision in ("approve", "deny"):
            held = threading.Thread(target=call, args=(gate, token, "odd__append", {"path": str(gate.files / "t"), "text": decision}))
            held.start()
            gate.cli(decision, gate.wait_for_question()["id"])
            held.join(30)
        gate.records = gate.audit()
        gate.stop()
        assert len(gate.records) >= 6
        yield gate
    finally:
        gate.destroy()


def database(folder):
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.open("rb").read(15) == b"SQLite format 3":
            with sqlite3.connect(path) as db:
                if db.execute("select 1 from sqlite_master where type = 'table' and name = 'audit'").fetchone():
                    return path
    raise AssertionError("no database with an `audit` table in %s" % folder)


class Copy:
    """A copy of the data directory, open to whoever wants to change history."""

    def __init__(self, gate, folder):
        self.gate = gate
        self.data = folder / "data"
        shutil.copytree(gate.data, self.data, ignore=lambda d, names: [n for n in names if n.endswith(".sock")])
        self.data.chmod(0o700)
        self.db = sqlite3.connect(database(self.data), isolation_level=None)
        self.db.execute("pragma ignore_check_constraints = on")
        self.db.execute("pragma foreign_keys = off")
        for (name,) in self.db.execute("select name from sqlite_master where type = 'trigger'").fetchall():
            self.db.execute('drop trigger "%s"' % name)
        self.rows = self.db.execute("select rowid, seq, id from audit order by seq").fetchall()
        self.before = sqlite3.connect(":memory:")
        self.db.backup(self.before)

    def restore(self) -> None:
        """Puts everything back."""
        self.before.backup(self.db)

    def verify(self):
        command = [str(BIN), "audit", "verify", "--data", str(self.data), "--config", str(self.gate.config), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=self.gate.environment(), timeout=30)
        return done.returncode, done.stdout + done.stderr

    def found_out(self, first_bad, what: str) -> None:
        """It exits 1 and names one of these sequence numbers."""
        status, said = self.verify()
        assert status == 1, "%s: exit %d, %s" % (what, status, said)
        assert any(re.search(r"\b%s\b" % seq, said) for seq in first_bad), "%s: %r names none of %r" % (what, said, first_bad)


@pytest.fixture
def copy(history, tmp_path):
    made = Copy(history, tmp_path)
    yield made
    made.db.close()


def test_an_untouched_log_verifies(copy):
    assert copy.verify()[0] == 0


def changed(value):
    if isinstance(value, int):
        return value + 100000
    if isinstance(value, float):
        return value + 1.0
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:] if value else b"x"
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1] != "0" else "1") if value else "x"
    return "x"


def test_every_column_of_every_row(copy):
    columns = [row[1] for row in copy.db.execute("pragma table_info(audit)")]
    assert {"seq", "id", "prev", "hash"} <= set(columns)
    for position, (rowid, seq, _id) in enumerate(copy.rows):
        for column in columns:
            (before,) = copy.db.execute('select "%s" from audit where rowid = ?' % column, (rowid,)).fetchone()
            after = changed(before)
            copy.db.execute('update audit set "%s" = ? where rowid = ?' % column, (after, rowid))
            # A changed hash may show at the next record, a changed number where the old one is missed.
            near = [number for _, number, _ in copy.rows[position : position + 2]] + [after]
            copy.found_out(near if column in ("seq", "hash") else [seq], "column `%s` of record %s" % (column, seq))
            copy.restore()
    assert copy.verify()[0] == 0, "the test did not put everything back"


@pytest.mark.parametrize("position", [0, 1, -2, -1], ids=["first", "second", "last but one", "last"])
def test_a_row_removed(copy, position):
    rowid, seq, _id = copy.rows[position]
    copy.db.execute("delete from audit where rowid = ?", (rowid,))
    around = copy.rows[position - 1 : position] if position not in (0,) else []
    copy.found_out([seq, seq + 1] + [row[1] for row in around], "record %s removed" % seq)


def test_all_rows_removed(copy):
    copy.db.execute("delete from audit")
    assert copy.verify()[0] == 1


def test_the_log_and_its_end_removed(copy):
    copy.db.execute("delete from audit")
    copy.db.execute("delete from chain_end")
    copy.found_out([1], "an emptied log")


@pytest.mark.parametrize("kept, said", [(True, "as it was signed"), (False, "found empty")])
def test_an_emptied_log_is_noted_at_the_next_start(gateway, kept, said):
    gate = gateway(lambda gate: group("dev", []))
    gate.token("dev")
    gate.stop()
    with sqlite3.connect(gate.data / "portcullis.db") as db:
        db.execute("drop trigger audit_is_kept")
        db.execute("delete from audit")
        db.execute("delete from chain_end")
    gate.tampered = True
    # The checkpoints are beside the database: they tell, unless they went with it.
    if not kept:
        (gate.data / "keys" / "checkpoints.jsonl").unlink()
    gate.up()
    assert said in gate.audit()[0]["tool"], gate.audit()
    gate.stop()
    assert gate.run("audit", "verify").returncode == (1 if kept else 0)


def test_a_row_inserted(copy):
    columns = [row[1] for row in copy.db.execute("pragma table_info(audit)")]
    rowid, seq, id = copy.rows[-1]
    values = list(copy.db.execute("select %s from audit where rowid = ?" % ", ".join('"%s"' % c for c in columns), (rowid,)).fetchone())
    values[columns.index("seq")] = seq + 1
    values[columns.index("id")] = changed(id)
    values[columns.index("prev")] = values[columns.index("hash")]
    values[columns.index("hash")] = changed(values[columns.index("hash")])
    marks = ", ".join("?" * len(columns))
    copy.db.execute("insert into audit (%s) values (%s)" % (", ".join('"%s"' % c for c in columns), marks), values)
    copy.found_out([seq + 1], "record %s inserted" % (seq + 1))


@pytest.mark.parametrize("chained", [False, True], ids=["the content", "content and chain"])
def test_two_rows_swapped(copy, chained):
    columns = [row[1] for row in copy.db.execute("pragma table_info(audit)") if row[1] != "seq"]
    if not chained:
        columns = [column for column in columns if column not in ("hash", "prev")]
    names = ", ".join('"%s"' % column for column in columns)
    (first, one, _), (second, two, _) = copy.rows[1], copy.rows[3]
    values = {rowid: copy.db.execute("select %s from audit where rowid = ?" % names, (rowid,)).fetchone() for rowid in (first, second)}
    sets = ", ".join('"%s" = ?' % column for column in columns)
    # A unique id has to leave before the other takes its place.
    copy.db.execute("update audit set id = 'elsewhere' where rowid = ?", (second,))
    copy.db.execute("update audit set %s where rowid = ?" % sets, (*values[second], first))
    copy.db.execute("update audit set %s where rowid = ?" % sets, (*values[first], second))
    copy.found_out([one], "records %s and %s swapped" % (one, two))


def test_the_log_tells_the_story(history):
    kinds = [(row["tool"].rpartition("__")[2], row["decision"], row["outcome"]) for row in history.records if row["tool"]]
    assert [kind for kind in kinds if kind[0] == "echo"] == [("echo", "allow", "ok")] * 3
    assert [kind for kind in kinds if kind[0] == "append"] == [("append", "ask", "ok"), ("append", "ask", "refused")]
    assert [kind[2] for kind in kinds if kind[0] == "die"] in (["error"], ["unknown"])
    for row in history.records:
        assert {"seq", "id", "at", "kind", "group", "conversation", "principal", "tool", "args", "decision", "rules"} <= set(row)
        assert {"labels", "approval", "outcome", "hash", "prev"} <= set(row)


def test_a_log_that_cannot_be_written_loses_no_end(gateway):
    gate = gateway(lambda gate: stand_in(gate.scratch, "odd") + group("dev", ["odd"]))
    token = gate.token("dev")
    trace = gate.files / "trace"
    answers: list = []
    arguments = {"path": str(trace), "steps": 30}
    begun = threading.Thread(target=lambda: answers.append(call(gate, token, "odd__count", arguments)))
    begun.start()
    wait_for(lambda: [row for row in gate.audit() if row["outcome"] == "running"], 10, "record of the call")
    with sqlite3.connect(gate.data / "portcullis.db", isolation_level=None, timeout=10) as held:
        held.execute("begin immediate")
        begun.join(20)
        assert trace.read_text() == "counted\n"
        waits = wait_for(lambda: (lambda a: a.status == 503 and a)(send(gate.port, "GET", "/readyz")), 20, "word of the log")
        assert b"1 records wait" in waits.body, waits.body
        assert gate.cli("status")["records_waiting"] == 1
        refused = call(gate, token, "odd__echo", {"text": "x"})
        assert refused.result["isError"] and "the log cannot be written" in refused.text, refused.body
        held.execute("rollback")
    wait_for(lambda: send(gate.port, "GET", "/readyz").status == 200, 20, "log that is written again")
    (row,) = [row for row in gate.audit() if "count" in (row["tool"] or "")]
    assert row["outcome"] == "ok", row
    assert call(gate, token, "odd__echo", {"text": "goes on"}).text == "goes on"
