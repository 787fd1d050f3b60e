"""Gathers the processes of a run before JAX connects them: JAX aborts a process whose peers are missing.

Process 0 listens. Every other process connects, says which one of how many it is, and gets "ok" once all are there, or
the reason why not. Then all connect by JAX on the same port.
"""

import socket
import time
from contextlib import ExitStack

SECONDS = 30.0  # for all processes to connect
GREETING = "jaxnet"
MAX_LINE = 300


def gather(host: str, port: int, processes: int, process: int) -> None:
    """Returns when all processes are there.

    Args:
        host: Where process 0 listens, by the name that the others know.
        port: Its port, 1 to 65535.
        processes: Number of processes.
        process: Number of this process, from 0.

    Raises:
        ValueError: If they are not there within SECONDS, if two have one number, or if something else listens there.
    """
    deadline = time.monotonic() + SECONDS
    if process:
        _report(host, port, f"{GREETING} {processes} {process}", deadline)
    else:
        _receive(port, processes, deadline)


def _receive(port: int, processes: int, deadline: float) -> None:
    numbers: set[int] = set()
    connections: list[socket.socket] = []
    with ExitStack() as opened:
        listener = opened.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except OSError as error:
            raise ValueError(f"coordinator: port {port} cannot be used ({error.strerror}); choose another") from error
        listener.listen()
        reason = ""
        while not reason and len(numbers) < processes - 1:
            try:
                connection = opened.enter_context(_accept(listener, deadline))
                greeting = _read_line(connection, deadline).split()
            except OSError:
                reason = _missing(numbers, processes)
                break
            if greeting[:1] != [GREETING] or len(greeting) != 3 or not all(map(str.isdecimal, greeting[1:])):
                continue  # something else, such as a scan of ports
            number = int(greeting[2])
            if int(greeting[1]) != processes:
                reason = f"processes: {processes} in process 0 and {greeting[1]} in process {number}, expected the same"
            elif number in numbers or not 0 < number < processes:
                reason = f"process: {number} twice or out of range, expected each number from 0 to {processes - 1} once"
            numbers.add(number)
            connections.append(connection)
        for connection in connections:
            connection.sendall(f"{reason or 'ok'}\n".encode())
    if reason:
        raise ValueError(reason)


def _report(host: str, port: int, greeting: str, deadline: float) -> None:
    try:
        with _connect(host, port, deadline) as connection:
            connection.sendall(f"{greeting}\n".encode())
            answer = _read_line(connection, deadline + 1)  # process 0 gives the reason at its own deadline
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(
            f"coordinator: {host}:{port} does not answer ({reason}); start all processes within {SECONDS:g} s, with "
            "the address of process 0"
        ) from error
    if answer != "ok":
        if answer.startswith(("process", "coordinator")):
            raise ValueError(answer)
        raise ValueError(f"coordinator: another program listens on {host}:{port}; choose a free port")


def _missing(numbers: set[int], processes: int) -> str:
    missing = [str(number) for number in range(1, processes) if number not in numbers]
    plural = "es" * (len(missing) > 1)
    return (
        f"coordinator: process{plural} {', '.join(missing)} of {processes} did not connect within {SECONDS:g} s; start "
        "them with the same address"
    )


def _accept(listener: socket.socket, deadline: float) -> socket.socket:
    listener.settimeout(max(0.01, deadline - time.monotonic()))
    return listener.accept()[0]


def _connect(host: str, port: int, deadline: float) -> socket.socket:
    while True:
        try:
            return socket.create_connection((host, port), timeout=max(0.01, deadline - time.monotonic()))
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _read_line(connection: socket.socket, deadline: float) -> str:
    """Returns what comes before the first newline, at most MAX_LINE bytes."""
    line = b""
    while b"\n" not in line and len(line) < MAX_LINE:
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        data = connection.recv(MAX_LINE)
        if not data:
            break
        line += data
    return line.partition(b"\n")[0].decode(errors="replace")
