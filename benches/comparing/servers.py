"""Starts the servers that are compared, each on the core of its own, and stops them.

A server is a name, the process ids to measure, and the URLs that the load is driven with.
"""

import contextlib
import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BIN = ROOT / "target" / "release"
NCHAN_MODULE = pathlib.Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
# How long a server may take to be there, in seconds.
PATIENCE = 20
PATH = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"]

CORES = sorted(os.sched_getaffinity(0))
# The kernel's own work (interrupts, timers) is mostly on the first core: the server has the last one.
SERVER_CORE, LOAD_CORE = str(CORES[-1]), str(CORES[0])

NCHAN = """
load_module {module};
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
worker_rlimit_nofile {files};
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    nchan_shared_memory_size 1024M;
    {upstream}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        keepalive_requests 1000000000;
        keepalive_timeout 3600s;
        # History as Sluice keeps it by default.
        nchan_message_buffer_length 1000;
        nchan_message_timeout 10m;
        location ~ ^/sub/(.+)$ {{ nchan_subscriber eventsource; nchan_channel_id $1; {passed} }}
        location ~ ^/pub/(.+)$ {{ nchan_publisher; nchan_channel_id $1; {passed} }}
    }}
}}
"""


class Server:
    """A running server: `pids` by name, and how to drive it."""

    def __init__(self, pids, url, publish_url):
        self.pids, self.url, self.publish_url = pids, url, publish_url


def raise_open_files():
    """Every stream is an open file, here and in the server."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def open_files():
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_until(condition, otherwise):
    """Asks until the answer is true, and gives it. A file or a connection that is not there yet is no answer; what is
    not so `PATIENCE` seconds later fails, with `otherwise` as the reason."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if answer := condition():
                return answer
        time.sleep(0.02)
    raise RuntimeError(f"after {PATIENCE} s: {otherwise}")


def asked(port, request):
    """The first line of what a port answers to a request."""
    with socket.create_connection(("127.0.0.1", port), 1) as connection:
        connection.sendall(request)
        return connection.recv(4096).split(b"\r\n")[0]


def whole(port, request):
    """What a port answers to a request that is answered in one piece."""
    with socket.create_connection(("127.0.0.1", port), 1) as connection:
        connection.sendall(request)
        return connection.recv(4096)


def wait_for(port):
    def listens():
        with socket.create_connection(("127.0.0.1", port), 1):
            return True

    wait_until(listens, f"nothing listens on port {port}")


def pinned(core, command, **more):
    command = ["taskset", "-c", core, *map(str, command)]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, **(quiet | more))


def end(process, how=signal.SIGTERM):
    process.send_signal(how)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def redis(folder, *more):
    """A Redis that keeps nothing on disk, beside the load."""
    port = free_port()
    command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", folder, *more]
    process = pinned(LOAD_CORE, command)
    try:
        wait_for(port)
        yield {"redis": process.pid}, f"redis://127.0.0.1:{port}", port
    finally:
        end(process)


@contextlib.contextmanager
def cluster(folder):
    """Three masters that keep nothing on disk, with all slots between them."""
    with contextlib.ExitStack() as stack:
        pids, ports, first = {}, [], None
        for nth in range(3):
            bus = free_port()
            own = pathlib.Path(folder, f"redis-{nth}")
            own.mkdir()
            found, _, port = stack.enter_context(redis(own, "--cluster-enabled", "yes", "--cluster-port", bus))
            pids[f"redis-{nth}"] = found["redis"]
            ports.append(port)
            share = [16384 * nth // 3, 16384 * (nth + 1) // 3 - 1]
            asked(port, f"CLUSTER ADDSLOTSRANGE {share[0]} {share[1]}\r\n".encode())
            first = first or (port, bus)
            asked(port, f"CLUSTER MEET 127.0.0.1 {first[0]} {first[1]}\r\n".encode())
        for port in ports:
            wait_until(lambda port=port: b"cluster_state:ok" in whole(port, b"CLUSTER INFO\r\n"), "the cluster is not whole")
        yield pids, f"redis+cluster://127.0.0.1:{ports[0]}", None


@contextlib.contextmanager
def floor(_folder):
    port = free_port()
    process = pinned(SERVER_CORE, [BIN / "sluice", "bench", "floor", "--listen", f"127.0.0.1:{port}"])
    try:
        wait_for(port)
        yield Server({"floor": process.pid}, f"http://127.0.0.1:{port}/{{channel}}", f"http://127.0.0.1:{port}/{{channel}}")
    finally:
        end(process)


@contextlib.contextmanager
def sluice(folder, redis_pids=None, redis_url=None, _redis_port=None, cores=SERVER_CORE):
    port, admin = free_port(), free_port()
    command = [BIN / "sluice-gateway", "--listen", f"127.0.0.1:{port}", "--admin-listen", f"127.0.0.1:{admin}"]
    if redis_url:
        command += ["--redis", redis_url]
    # A drain would take its time to end streams that the load has left anyway.
    environment = os.environ | {"SLUICE_DRAIN__DELAY": "0s", "SLUICE_DRAIN__WINDOW": "0s"}
    # For many streams of few HTTP/2 connections.
    environment["SLUICE_LIMITS__CONNECTIONS"] = "200000"
    with open(pathlib.Path(folder, "sluice.log"), "wb") as log:
        process = pinned(cores, command, env=environment, stderr=log)
    try:
        wait_for(port)
        wait_until_ready(admin)
        pids = {"server": process.pid} | (redis_pids or {})
        base = f"http://127.0.0.1:{port}"
        yield Server(pids, f"{base}/events?channel={{channel}}", f"{base}/channels/{{channel}}/events")
    finally:
        end(process)


def wait_until_ready(admin_port):
    request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    wait_until(lambda: b" 200 " in asked(admin_port, request), "the gateway is not ready")


@contextlib.contextmanager
def nchan(folder, redis_pids=None, _redis_url=None, redis_port=None):
    port = free_port()
    upstream = f"upstream peers {{ nchan_redis_server redis://127.0.0.1:{redis_port}; }}" if redis_port else ""
    passed = "nchan_redis_pass peers;" if redis_port else ""
    files = open_files()
    text = NCHAN.format(
        module=NCHAN_MODULE, folder=folder, port=port, upstream=upstream, passed=passed,
        files=files, connections=files - 100,
    )
    settings = pathlib.Path(folder, "nginx.conf")
    settings.write_text(text)
    environment = os.environ | {"PATH": ":".join(PATH)}
    process = pinned(SERVER_CORE, ["nginx", "-c", settings], env=environment)
    try:
        wait_for(port)
        pids = {"server": worker_of(process.pid)} | (redis_pids or {})
        wait_until_published(port)
        base = f"http://127.0.0.1:{port}"
        yield Server(pids, f"{base}/sub/{{channel}}", f"{base}/pub/{{channel}}")
    finally:
        end(process)


def wait_until_published(port):
    """nchan answers 503 until it has found its Redis."""
    request = b"POST /pub/first HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"
    wait_until(lambda: b" 20" in asked(port, request), "nchan takes no event")


def worker_of(pid):
    """nginx listens before it has made its worker."""
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
    return int(wait_until(lambda: children.read_text().split(), "nginx has no worker")[0])


KINDS = {"floor": floor, "nchan": nchan, "Sluice": sluice}


@contextlib.contextmanager
def running(kind, both_cores=False):
    """The server of a kind, `floor`, `nchan`, `Sluice`, the last two also `… + Redis`, and Sluice `… + Cluster` of three
    masters, started anew; Sluice also on both cores, of which the load then has a part."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        # nginx drops its rights, and has to read what it is given.
        os.chmod(folder, 0o755)
        name, _, with_redis = kind.partition(" + ")
        if with_redis:
            carrier = cluster if with_redis == "Cluster" else redis
            yield stack.enter_context(KINDS[name](folder, *stack.enter_context(carrier(folder))))
        elif both_cores:
            yield stack.enter_context(sluice(folder, cores=f"{SERVER_CORE},{LOAD_CORE}"))
        else:
            yield stack.enter_context(KINDS[name](folder))


def load(command, server, options):
    """Runs `sluice bench COMMAND` on the load's core. Answers what it measured and, as `faults`, what it complained of."""
    pids = [f"--pid={name}={pid}" for name, pid in server.pids.items()]
    urls = [f"--url={server.url}", f"--publish-url={server.publish_url}"]
    arguments = [BIN / "sluice", "bench", command, "--json", *urls, *pids, *options]
    arguments = ["taskset", "-c", LOAD_CORE, *map(str, arguments)]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=600, check=False)
    try:
        measured = json.loads(done.stdout)
    except ValueError as error:
        raise RuntimeError(f"{' '.join(arguments)}\n{done.stderr}") from error
    said = [line.removeprefix("sluice: ") for line in done.stderr.splitlines()]
    return measured | {"faults": said or ["it failed"] if done.returncode else []}
