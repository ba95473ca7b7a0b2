"""Servers that a job starts: ready, dying, silent, stubborn, in each other's way."""

import contextlib
import os
import signal
import socket
import stat
from pathlib import Path

import httpx
import pytest
from servers import DEAF, FORKS, GOOD, HANGS, NEVER, START, TELL, command, gone, group_members, server_group

from score.engine.serve import Server, serve
from score.errors import InfrastructureError


def get(server: Server, path: str = "/health") -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(uds=server.socket)) as client:
        return client.get(server.url + path)


@pytest.mark.parametrize("extra", ["", FORKS, DEAF, FORKS + DEAF])
@pytest.mark.parametrize("unix", [False, True])
def test_a_server_answers_and_its_whole_group_ends_with_the_block(tmp_path, extra, unix):
    log = tmp_path / "server.log"
    program = TELL + extra + GOOD + START
    with serve(command(program), log, unix=unix, timeout_s=20, grace_s=1) as server:
        assert get(server).text == "ok"
        group = server_group(log)
        assert group_members(group)
    assert gone(group)


def test_the_provenance_has_the_command_and_the_version(tmp_path):
    with serve(command(GOOD + START), tmp_path / "l", unix=True, timeout_s=20) as server:
        assert server.facts == {"command": command(GOOD + START)("SOCKET"), "version": "1.2"}


def test_a_socket_is_this_users_alone_and_leaves_with_the_server(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("long" * 30)))
    (tmp_path / ("long" * 30)).mkdir()
    with serve(command(GOOD + START), tmp_path / "l", unix=True, timeout_s=20) as server:
        folder = Path(server.socket).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert len(server.socket) < 100
    assert not folder.exists()
    assert list((tmp_path / ("long" * 30)).iterdir()) == []


def test_the_environment_reaches_the_server(tmp_path):
    program = "import os; print(os.environ['WORD'])\n" + GOOD + START
    with serve(command(program), tmp_path / "l", environment={"WORD": "42"}, timeout_s=20):
        assert (tmp_path / "l").read_text().startswith("42")


def test_it_ends_with_an_exception_too(tmp_path):
    log = tmp_path / "server.log"
    with pytest.raises(ZeroDivisionError), serve(command(TELL + GOOD + START), log, timeout_s=20):
        _ = 1 / 0
    assert gone(server_group(log))


def test_a_server_that_dies_shows_its_own_last_lines(tmp_path):
    (tmp_path / "l").write_text("of an earlier server\n")
    program = "print('no such model'); raise SystemExit(3)"
    why = r"before it was ready.*code 3.*no such model"
    with pytest.raises(InfrastructureError, match=why) as error, serve(command(program), tmp_path / "l"):
        pass
    assert "earlier" not in str(error.value)


def test_the_first_error_is_shown_however_long_a_shutdown_goes_on(tmp_path):
    program = (
        "print('WARNING a low limit can cause OSError: too many open files'); print('RuntimeError: out of memory'); "
        "print('closing\\n' * 50); raise SystemExit(1)"
    )
    message = r"first error: RuntimeError: out of memory; last lines"
    with pytest.raises(InfrastructureError, match=message) as failed, serve(command(program), tmp_path / "l"):
        pass
    assert str(failed.value).count("closing") <= 8


def test_a_server_that_never_gets_ready_is_given_up_and_ended(tmp_path):
    log = tmp_path / "l"
    with (
        pytest.raises(InfrastructureError, match="not ready after 3 s"),
        serve(command(TELL + NEVER), log, timeout_s=3),
    ):
        pass
    assert gone(server_group(log))


def test_a_server_that_hangs_on_its_health_and_then_dies_is_noticed(tmp_path):
    with (
        pytest.raises(InfrastructureError, match=r"code 7.*still loading"),
        serve(command(HANGS, "1"), tmp_path / "l", timeout_s=60),
    ):
        pass


def test_a_server_that_hangs_on_its_health_is_given_up(tmp_path):
    with (
        pytest.raises(InfrastructureError, match=r"not ready after 3 s.*still loading"),
        serve(command(HANGS, "60"), tmp_path / "l", timeout_s=3),
    ):
        pass


def test_a_server_that_dies_in_the_middle_of_the_work_ends_the_block_with_an_error(tmp_path):
    log = tmp_path / "l"

    def work() -> None:
        with serve(command(TELL + GOOD + START), log, timeout_s=20) as server:
            assert server.death() is None
            os.kill(server_group(log), signal.SIGKILL)
            server.process.wait()
            assert "code -9" in server.death()

    with pytest.raises(InfrastructureError, match=r"ended with code -9; last lines.*start again"):
        work()


def test_a_server_whose_port_is_taken_starts_again_on_another(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = []

        def clashing(port: str) -> list[str]:
            ports.append(port)
            return command(GOOD + START)(str(taken.getsockname()[1]) if len(ports) == 1 else port)

        with serve(clashing, tmp_path / "l", timeout_s=20) as server:
            assert server.url.endswith(ports[1])
            assert get(server).text == "ok"
        assert "Address already in use" in (tmp_path / "l").read_text()


def test_it_is_not_started_again_forever(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with (
            pytest.raises(InfrastructureError, match="Address already in use"),
            serve(lambda _: command(GOOD + START)(port), tmp_path / "l", timeout_s=20),
        ):
            pass


def test_a_port_of_ones_choice_that_is_taken_is_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(InfrastructureError, match=rf"127\.0\.0\.1, port {port}: Address already in use"),
            serve(lambda port: pytest.fail("nothing is started"), tmp_path / "log", address=("127.0.0.1", port)),
        ):
            pytest.fail("nothing is served")


def test_a_port_is_held_until_the_server_has_it(tmp_path):
    def command_of_a_rival(port: str) -> list[str]:
        with contextlib.closing(socket.socket()) as rival, pytest.raises(OSError, match="in use"):
            rival.bind(("127.0.0.1", int(port)))
        return command(GOOD + START)(port)

    with serve(command_of_a_rival, tmp_path / "l", timeout_s=20) as server:
        assert get(server).text == "ok"
