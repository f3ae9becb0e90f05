# SPDX-License-Identifier: LGPL-2.1-or-later
"""The two transports of the API behind one face, so that one suite runs over both.

Native is a SOCK_SEQPACKET connection to fd.sock. Grpc is a channel to broker.sock, joined by a
connection to fd.sock for descriptors, as any client in any language would do it.
"""

import os
import socket
import struct

import grpc

from api import METHODS, Disconnected, Refused, Status, pb

HEADER = struct.Struct("<IIQ")
PACKET_MAX = 65536
# So long a silence is a hang; no test expects an answer sooner than it comes.
PATIENCE = 60
SESSION_KEY = "iommubroker-session-bin"
JOIN, SEND, TAKE, CANCEL = 1, 2, 3, 4


class Reply:
    """What a call answered: the last message, all messages, descriptors that came along."""

    def __init__(self, messages, fds=()):
        self.messages = messages
        self.message = messages[-1] if messages else None
        self.fds = list(fds)


class Seqpacket:
    """Packets of the native transport, answers sorted by their call."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            # with a timeout a full backlog would be an error
            self.sock.connect(path)
        except OSError:
            self.sock.close()
            raise
        self.sock.settimeout(PATIENCE)
        self.next_call = 1
        self.answers = {}

    def send(self, number, request, fds=(), reserved=0, call=None):
        if call is None:
            call = self.next_call
            self.next_call += 1
        body = request if isinstance(request, bytes) else request.SerializeToString()
        packet = HEADER.pack(number, reserved, call) + body
        try:
            if fds:
                socket.send_fds(self.sock, [packet], list(fds))
            else:
                self.sock.send(packet)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Disconnected(str(error)) from error
        return call

    def receive(self):
        """One answer is put where its call waits for it."""
        try:
            data, fds, flags, _ = socket.recv_fds(self.sock, PACKET_MAX * 2, 16, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError as error:
            raise Disconnected(str(error)) from error
        if not data:
            raise Disconnected("end of the native connection")
        assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC), "truncated answer"
        _, reserved, call = HEADER.unpack_from(data)
        assert reserved == 0
        answer = pb.NativeAnswer.FromString(data[HEADER.size :])
        self.answers.setdefault(call, []).append((answer, fds))
        return call

    def answer(self, call):
        """The next answer of that call."""
        while not self.answers.get(call):
            self.receive()
        return self.answers[call].pop(0)

    def close(self):
        for queue in self.answers.values():
            for _, fds in queue:
                for fd in fds:
                    os.close(fd)
        self.answers = {}
        self.sock.close()


class NativeCall:
    """A call in flight."""

    def __init__(self, packets, call, what, response):
        self.packets, self.call, self.what, self.response = packets, call, what, response
        self.ended = False

    def next(self):
        """The next message and its descriptors; None at the end of a stream."""
        if self.ended:
            return None
        answer, fds = self.packets.answer(self.call)
        self.ended = not answer.more
        if answer.HasField("status") and answer.status.code:
            for fd in fds:
                os.close(fd)
            raise Refused(answer.status, self.what)
        if not answer.more and not answer.message and self.what in ("WatchEvents", "ShowGuest"):
            return None
        return self.response.FromString(answer.message), fds

    def result(self):
        messages, held = [], []
        while not self.ended:
            got = self.next()
            if got is None:
                break
            messages.append(got[0])
            held += got[1]
        return Reply(messages, held)

    def cancel(self):
        self.packets.send(CANCEL, b"", call=self.call)


class Native:
    """A client on fd.sock."""

    name = "native"

    def __init__(self, folder):
        self.folder = folder
        self.packets = Seqpacket(os.path.join(folder, "fd.sock"))
        self.attached = []

    def start(self, name, request=None):
        method = METHODS[name]
        request = method.request() if request is None else request
        fds, self.attached = self.attached, []
        call = self.packets.send(method.number, request, fds)
        return NativeCall(self.packets, call, name, method.response)

    def call(self, name, request=None):
        return self.start(name, request).result()

    def open_session(self, name="test"):
        reply = self.call("OpenSession", pb.OpenSessionRequest(name=name)).message
        self.secret = reply.secret
        return reply

    def give(self, fd):
        """Attach a descriptor to the next call; what names it in that call's message."""
        self.attached.append(fd)
        return pb.DescriptorRef(attached=len(self.attached) - 1)

    def take(self, ref, reply):
        assert ref.WhichOneof("source") == "attached", ref
        return reply.fds[ref.attached]

    def close(self):
        self.packets.close()


class GrpcCall:
    def __init__(self, call, what, stream):
        self.call, self.what, self.stream = call, what, stream
        self.messages = iter(call) if stream else None

    def next(self):
        try:
            if self.stream:
                return next(self.messages), []
            return self.call.result(PATIENCE), []
        except StopIteration:
            return None
        except grpc.FutureCancelledError:
            raise Refused(Status(code=1, message="cancelled here"), self.what) from None
        except grpc.RpcError as error:
            raise refused(error, self.what) from None

    def result(self):
        if not self.stream:
            return Reply([self.next()[0]])
        messages = []
        while True:
            got = self.next()
            if got is None:
                return Reply(messages)
            messages.append(got[0])

    def cancel(self):
        self.call.cancel()


def refused(error, what):
    """A Refused from what grpc raises."""
    status = Status(code=error.code().value[0], message=error.details() or "")
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = Status.FromString(value)
            assert status.code == error.code().value[0], "details disagree with the status"
    return Refused(status, what)


def grpc_channel(path):
    return grpc.insecure_channel(
        "unix:" + path,
        options=[
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", 8 << 20),
            ("grpc.enable_retries", 0),
        ],
    )


class Grpc:
    """A client on broker.sock, with its descriptors on fd.sock."""

    name = "grpc"

    def __init__(self, folder, socket_name="broker.sock"):
        self.folder = folder
        self.path = os.path.join(folder, socket_name)
        self.channel = grpc_channel(self.path)
        self.metadata = []
        self.joined = None

    def start(self, name, request=None, timeout=PATIENCE):
        method = METHODS[name]
        request = method.request() if request is None else request
        serialize = lambda r: r if isinstance(r, bytes) else r.SerializeToString()
        make = self.channel.unary_stream if method.stream else self.channel.unary_unary
        stub = make(method.path, serialize, method.response.FromString)
        if method.stream:
            call = stub(request, timeout=timeout, metadata=self.metadata)
        else:
            call = stub.future(request, timeout=timeout, metadata=self.metadata)
        return GrpcCall(call, name, method.stream)

    def call(self, name, request=None):
        return self.start(name, request).result()

    def open_session(self, name="test"):
        reply = self.call("OpenSession", pb.OpenSessionRequest(name=name)).message
        self.secret = reply.secret
        self.metadata = [(SESSION_KEY, reply.secret)]
        return reply

    def reconnect(self):
        """The gRPC connection ends and another begins; the session is the same."""
        self.channel.close()
        self.channel = grpc_channel(self.path)

    def descriptors(self):
        if self.joined is None:
            joined = Seqpacket(os.path.join(self.folder, "fd.sock"))
            self.native(joined, JOIN, pb.JoinSessionRequest(secret=self.secret), pb.JoinSessionResponse)
            self.joined = joined
        return self.joined

    @staticmethod
    def native(packets, number, request, response, fds=()):
        call = packets.send(number, request, fds)
        return NativeCall(packets, call, str(number), response).result()

    def give(self, fd):
        reply = self.native(
            self.descriptors(), SEND, pb.SendDescriptorRequest(), pb.SendDescriptorResponse, [fd]
        )
        return pb.DescriptorRef(token=reply.message.token)

    def take(self, ref, reply=None):
        assert ref.WhichOneof("source") == "token", ref
        reply = self.native(
            self.descriptors(), TAKE, pb.TakeDescriptorRequest(token=ref.token), pb.TakeDescriptorResponse
        )
        assert len(reply.fds) == 1
        return reply.fds[0]

    def close(self):
        self.channel.close()
        if self.joined:
            self.joined.close()
            self.joined = None


TRANSPORTS = {"grpc": Grpc, "native": Native}
