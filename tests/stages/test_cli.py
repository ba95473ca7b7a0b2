"""How a command line ends."""

import pytest

from score import cli


def test_an_interrupted_job_ends_with_one_line(capsys, monkeypatch):
    monkeypatch.setattr("score.cli.exit_on_sigterm", lambda: None)

    def interrupted(argv):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        cli.run(interrupted)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "error: interrupted; what is done is kept, start again\n"
