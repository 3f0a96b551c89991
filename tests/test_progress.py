"""Progress bars: what moves on a terminal, and lines where there is none."""

import io

from experiments import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_a_line_in_ten_seconds_and_no_carriage_returns(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    with progress.bar(total=100_000, unit=" updates", desc="training") as bar:
        for _ in range(100_000):
            bar.update()
            bar.set_postfix(loss="0.1", refresh=False)
        assert bar.mininterval == 10 and bar.n == 100_000
    lines = log.getvalue().split("\n")
    assert "\r" not in log.getvalue() and lines[-1] == "" and all(lines[:-1])
    assert "0/100000" in lines[0] and "100000/100000" in lines[-2]
    assert len(lines) < 100  # a moving bar would have written thousands: ten a second


def test_a_terminal_gets_a_bar_that_moves(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with progress.bar(total=2) as bar:
        bar.update(2)
    assert "\r" in terminal.getvalue() and bar.mininterval < 1
