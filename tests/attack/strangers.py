# strangers.py HOW PORT [NUMBER]
# Sends a POST to a daemon on loopback, in one of several ways (HOW), as the current user. Prints the status of the
# answer, or "-" if there is none. HOW "racing" prints the number of requests sent.
import array
import os
import socket
import struct
import subprocess
import sys

how, port = sys.argv[1], int(sys.argv[2])
number = int(sys.argv[3]) if len(sys.argv) > 3 else 1
REQUEST = b"POST /collector/stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"


def connected(family=socket.AF_INET, address="127.0.0.1", protocol=0, source=0):
    client = socket.socket(family, socket.SOCK_STREAM, protocol)
    client.settimeout(10)
    if source:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind(("", source))
    client.connect((address, port))
    return client


def reset_on_close(client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def status(client):
    try:
        words = client.recv(4096).split(b" ")
        return words[1].decode() if len(words) > 1 else "-"
    except OSError:
        return "-"


def plain(request=REQUEST):
    client = connected()
    client.sendall(request)
    return status(client)


def old():
    return plain(REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"))


def half():
    client = connected()
    client.sendall(REQUEST)
    client.shutdown(socket.SHUT_WR)
    return status(client)


def mapped():
    client = connected(socket.AF_INET6, "::ffff:127.0.0.1")
    client.sendall(REQUEST)
    return status(client)


def mptcp():
    try:
        client = connected(protocol=262)
    except OSError as error:
        return f"none: {error}"
    client.sendall(REQUEST)
    return status(client)


# An unprivileged user opens the socket and passes it to root, which sends the request.
def passed():
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        os.setresuid(65534, 65534, 65534)
        client = connected()
        ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [client.fileno()]))])
        os._exit(0)
    ancillary = theirs.recvmsg(1, 1024)[1]
    client = socket.socket(fileno=struct.unpack("i", ancillary[0][2][:4])[0])
    client.settimeout(10)
    client.sendall(REQUEST)
    return status(client)


# Root in a user namespace that the caller created, in the same network namespace.
def unshared():
    command = ["unshare", "--user", "--map-root-user", sys.executable, __file__, "plain", str(port)]
    ended = subprocess.run(command, capture_output=True, text=True)
    return ended.stdout.strip() or f"none: {ended.stderr.strip()}"


# Sends and closes before the answer; NUMBER is the source port.
def closed():
    client = connected(source=number)
    client.sendall(REQUEST)
    client.close()


def reset():
    client = connected(source=number)
    reset_on_close(client)
    client.sendall(REQUEST)
    client.close()


# Sends NUMBER requests and ends each connection in one of four ways: reset or close, with or without shutdown.
def racing():
    sent = 0
    for turn in range(number):
        try:
            client = connected()
            if turn % 4 == 0:
                reset_on_close(client)
            client.sendall(REQUEST)
            if turn % 4 == 2:
                client.shutdown(socket.SHUT_WR)
            client.close()
            sent += 1
        except OSError:
            pass
    return sent


print(globals()[how]())
