# SPDX-License-Identifier: LGPL-2.1-or-later
"""A client in a process of its own, which does what it is told: managers and those they hand guests to.

actor.py CONTROL UID PATH: connects to the socket PATH, or takes the connected socket whose number
PATH is, as user UID, and says hello to CONTROL; then carries out calls that come there.
"""

import os
import pickle
import socket
import subprocess
import sys

from api import METHODS, Disconnected, Refused, Status
from fixture import PATIENCE, die_with_parent
from transport import JOIN, Grpc, Native, NativeCall, Seqpacket

SIZE = 1 << 17


class Over(Native):
    """A native client over a socket that somebody else connected."""

    def __init__(self, sock):
        self.packets = Seqpacket.__new__(Seqpacket)
        self.packets.sock = sock
        sock.settimeout(PATIENCE)
        self.packets.next_call = 1
        self.packets.answers = {}
        self.attached = []


class Actor:
    """The test's side of it; looks like a client."""

    name = "native"

    def __init__(self, path, uid=None, namespace=False):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(PATIENCE)
        inherited = [path.fileno()] if isinstance(path, socket.socket) else []
        # in a namespace of its own it is that user before it begins, and root in there
        become = -1 if uid is None or namespace else uid
        command = [sys.executable, os.path.abspath(__file__), str(theirs.fileno()), str(become)]
        command.append(str(inherited[0]) if inherited else path)
        if namespace:
            command = ["unshare", "--user", "--map-root-user", *command]
        self.process = subprocess.Popen(
            command, pass_fds=[theirs.fileno(), *inherited], preexec_fn=die_with_parent,
            user=uid if namespace else None,
        )  # fmt: skip
        theirs.close()
        self.control = ours
        self.attached = []
        hello, _ = self._receive()
        if hello != "hello":
            self.close()
            raise Disconnected(str(hello))

    @property
    def pid(self):
        return self.process.pid

    def _receive(self):
        data, fds, _, _ = socket.recv_fds(self.control, SIZE, 8, socket.MSG_CMSG_CLOEXEC)
        if not data:
            raise Disconnected("the actor ended")
        return pickle.loads(data), fds

    def give(self, fd):
        from api import pb

        self.attached.append(fd)
        return pb.DescriptorRef(attached=len(self.attached) - 1)

    def start(self, name, request):
        body = pickle.dumps((name, request.SerializeToString()))
        fds, self.attached = self.attached, []
        socket.send_fds(self.control, [body], fds) if fds else self.control.send(body)

    def call(self, name, request=None):
        method = METHODS[name]
        self.start(name, method.request() if request is None else request)
        (status, messages), fds = self._receive()
        if status is None:
            raise Disconnected("the actor's connection ended")
        if status:
            raise Refused(Status.FromString(status), name)
        from transport import Reply

        return Reply([method.response.FromString(m) for m in messages], fds)

    def open_session(self, name="actor"):
        from api import pb

        opened = self.call("OpenSession", pb.OpenSessionRequest(name=name)).message
        self.secret = opened.secret
        return opened

    def join_session(self, path):
        """Its session again, over another connection, as the library does after a loss of the first."""
        self.control.send(pickle.dumps((JOIN, (path, self.secret))))
        (status, _), _ = self._receive()
        if status is None:
            raise Disconnected("no connection")
        if status:
            raise Refused(Status.FromString(status), "JoinSession")

    def take(self, ref, reply):
        return reply.fds[ref.attached]

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        self.control.close()
        self.kill()


def join(client, path, secret):
    from api import pb

    client.packets.close()
    client.packets = Seqpacket(path)
    Grpc.native(client.packets, JOIN, pb.JoinSessionRequest(secret=secret), pb.JoinSessionResponse)
    return ("", []), []


def told(call):
    try:
        return call()
    except Refused as error:
        return (error.status.SerializeToString(), []), []
    except (Disconnected, OSError):
        return (None, []), []


def carry_out(client, name, body, fds):
    method = METHODS[name]
    call = client.packets.send(method.number, body, fds)

    def result():
        reply = NativeCall(client.packets, call, name, method.response).result()
        return ("", [m.SerializeToString() for m in reply.messages]), reply.fds

    try:
        return told(result)
    finally:
        for fd in fds:
            os.close(fd)


def connect(path):
    if path.isdigit():
        return Over(socket.socket(fileno=int(path)))
    client = Native.__new__(Native)
    client.packets = Seqpacket(path)
    return client


def main():
    control, uid, path = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), sys.argv[3]
    try:
        if uid >= 0:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        client = connect(path)
    except OSError as error:
        control.send(pickle.dumps(str(error)))
        return
    control.send(pickle.dumps("hello"))
    while True:
        data, fds, _, _ = socket.recv_fds(control, SIZE, 8, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return
        name, body = pickle.loads(data)
        if name == JOIN:
            answer, back = told(lambda: join(client, *body))
        else:
            answer, back = carry_out(client, name, body, fds)
        data = pickle.dumps(answer)
        socket.send_fds(control, [data], back) if back else control.send(data)
        for fd in back:
            os.close(fd)


if __name__ == "__main__":
    main()
