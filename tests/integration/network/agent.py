"""Runs in a network namespace of its own (argv: container uid) and does what the JSON lines on stdin ask."""

import ctypes
import json
import os
import socket
import subprocess
import sys
import threading

libc = ctypes.CDLL(None, use_errno=True)


def answer(value: object) -> None:
    print(json.dumps(value), flush=True)


def serve_tcp(server: socket.socket) -> None:
    while True:
        connection, peer = server.accept()
        connection.sendall(peer[0].encode())  # the server speaks first
        connection.recv(1)
        connection.close()


def serve_udp(server: socket.socket) -> None:
    while True:
        _, peer = server.recvfrom(100)
        server.sendto(peer[0].encode(), peer)


def do(command: str, *args: object) -> object:
    if command in ("tcp", "udp"):
        port = int(str(args[0]))
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM if command == "tcp" else socket.SOCK_DGRAM)
        server.bind(("0.0.0.0", port))
        if command == "tcp":
            server.listen()
        threading.Thread(target=serve_tcp if command == "tcp" else serve_udp, args=(server,), daemon=True).start()
        return "ok"
    if command == "connect":
        try:
            with socket.create_connection((str(args[0]), int(str(args[1]))), timeout=1.5) as s:
                return s.recv(100).decode()
        except OSError as e:
            return f"error: {e}"
    if command == "query":
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.settimeout(1.5)
                s.sendto(b"x", (str(args[0]), int(str(args[1]))))
                return s.recv(100).decode()
        except OSError as e:
            return f"error: {e}"
    if command == "run":
        return subprocess.run([str(a) for a in args], capture_output=True, text=True).stdout
    raise ValueError(command)


def main() -> None:
    uid, gid, inside = os.getuid(), os.getgid(), int(sys.argv[1])
    if libc.unshare(0x10000000 | 0x40000000) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{inside} {uid} 1"), ("gid_map", f"{inside} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as f:
            f.write(text)
    answer("ready")
    for line in sys.stdin:
        answer(do(*json.loads(line)))


if __name__ == "__main__":
    main()
