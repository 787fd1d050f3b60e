"""Tests that processes find each other, and that all are told in one line why they do not."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from jaxnet.train import rendezvous


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def outcomes(monkeypatch, port, *calls, seconds=10.0):
    """Returns what `gather` of each (processes, process), at the same time, raises; "" for nothing."""
    monkeypatch.setattr(rendezvous, "SECONDS", seconds)

    def outcome(call):
        try:
            rendezvous.gather("localhost", port, *call)
        except ValueError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(outcome, calls))


def test_all_go_on_when_all_are_there(monkeypatch, port):
    assert outcomes(monkeypatch, port, (3, 2), (3, 0), (3, 1)) == ["", "", ""]
    assert outcomes(monkeypatch, port, (2, 0), (2, 1)) == ["", ""]  # the port is free again


def test_all_are_told_who_is_missing(monkeypatch, port):
    first, second = outcomes(monkeypatch, port, (4, 0), (4, 2), seconds=0.5)
    assert first == second
    assert first.startswith("coordinator: processes 1, 3 of 4 did not connect within 0.5 s; start them with the same")


def test_a_process_without_a_first_one_is_told_so(monkeypatch, port):
    (message,) = outcomes(monkeypatch, port, (2, 1), seconds=0.3)
    assert message.startswith(
        f"coordinator: localhost:{port} does not answer (Connection refused); start all processes"
    )


def test_all_are_told_of_different_numbers_of_processes(monkeypatch, port):
    expected = "processes: 2 in process 0 and 3 in process 1, expected the same"
    assert outcomes(monkeypatch, port, (2, 0), (3, 1)) == [expected, expected]


def test_all_are_told_of_a_number_that_two_have(monkeypatch, port):
    messages = outcomes(monkeypatch, port, (3, 0), (3, 1), (3, 1))
    assert messages == ["process: 1 twice or out of range, expected each number from 0 to 2 once"] * 3


def test_a_port_in_use_is_refused(monkeypatch, port):
    with socket.socket() as other:
        other.bind(("", port))
        other.listen()
        (message,) = outcomes(monkeypatch, port, (2, 0))
    assert message == f"coordinator: port {port} cannot be used (Address already in use); choose another"


@pytest.mark.parametrize("answer", [b"HTTP/1.0 400 Bad request\r\n\r\n", b"", b"x" * 5000])
def test_another_program_at_the_address_is_told_from_process_0(monkeypatch, port, answer):
    with socket.socket() as other:
        other.bind(("localhost", port))
        other.listen()

        def serve():
            connection, _ = other.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        (message,) = outcomes(monkeypatch, port, (2, 1))
        thread.join()
    assert message == f"coordinator: another program listens on localhost:{port}; choose a free port"


def test_a_program_that_says_something_else_does_not_count(monkeypatch, port):
    def scan():
        with socket.create_connection(("localhost", port)) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")

    timer = threading.Timer(0.2, scan)
    timer.start()
    first, second = outcomes(monkeypatch, port, (3, 0), (3, 1), seconds=0.8)
    timer.join()
    assert first == second
    assert first.startswith("coordinator: process 2 of 3 did not connect")
