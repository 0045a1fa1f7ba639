"""Fixtures: gateways that are torn down whatever happens, and the checks that hold after every test."""

import pytest

import driver


@pytest.fixture
def gateway(request):
    """A maker of gateways. `gateway(sections)` gives one that runs; a function instead of sections is given its
    files directory. After the test each is stopped, nothing it started may be left, and its log must be in order."""
    made = []

    def make(*sections, start: bool = True) -> driver.Gateway:
        gate = driver.Gateway()
        made.append(gate)
        gate.configure(*(part(gate) if callable(part) else part for part in sections))
        return gate.up() if start else gate

    yield make
    failed = getattr(request.node, "failed", False)
    problems = []
    for gate in made:
        try:
            if gate.process and gate.process.poll() is None:
                gate.stop()
            if gate.process and (gate.data / "portcullis.db").exists() and not getattr(gate, "tampered", False):
                done = gate.run("audit", "verify")
                assert done.returncode == 0, "the log does not verify: %s%s" % (done.stdout, done.stderr)
        except AssertionError as problem:
            problems.append(problem)
        finally:
            gate.destroy(show=failed or bool(problems))
    assert not problems, problems


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.when == "call" and report.failed:
        item.failed = True
