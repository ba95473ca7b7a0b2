"""Small servers of every temper, and what is left of them; for the tests of those that a job starts."""

import sys
import time
from pathlib import Path

GOOD = """
import http.server, os, socketserver, sys
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"version": "1.2"}' if self.path == "/version" else b"ok"
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
class Unix(socketserver.UnixStreamServer):
    def get_request(self): return self.socket.accept()[0], ("", 0)
"""
START = """
place = sys.argv[1]
server = http.server.HTTPServer(("127.0.0.1", int(place)), H) if place.isdigit() else Unix(place, H)
server.serve_forever()
"""
FORKS = "import subprocess; subprocess.Popen(['sleep', '300'])\n"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
TELL = "import os; print(os.getpid(), flush=True)\n"
NEVER = "import time; time.sleep(60)\n"
HANGS = (
    "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
    "print('still loading', flush=True); time.sleep(float(sys.argv[2])); raise SystemExit(7)\n"
)


def command(program: str, *more: str):
    return lambda place: [sys.executable, "-c", program, place, *more]


def group_members(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) == pid and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def server_group(log: Path) -> int:
    return int(log.read_text().split()[0])


def gone(group: int, within_s: float = 10) -> bool:
    deadline = time.monotonic() + within_s
    while group_members(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    return group_members(group) == []
