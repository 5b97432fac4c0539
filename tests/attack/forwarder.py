# forwarder.py FROM TO
# Passes connections on from one port of the loopback to another, byte for byte.
import socket
import sys
import threading

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))


def pass_on(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


while True:
    client = listener.accept()[0]
    inside = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
    threading.Thread(target=pass_on, args=(client, inside), daemon=True).start()
    threading.Thread(target=pass_on, args=(inside, client), daemon=True).start()
