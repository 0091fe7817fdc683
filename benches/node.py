#!/usr/bin/env python3
"""What one node costs, beside nginx, in one run.

The same load goes to the simulator directly, through nginx (`proxy_pass` with keepalive, the
yardstick) and through `flotilla serve` (release build, keys and metrics on), in interleaved rounds.
CPU is utime + stime of the process from /proc, so a busy machine shifts it less than latencies.
Instructions are counted by callgrind and are the figure to compare commits by.

Usage: benches/node.py [--binary PATH] [--rounds N] [--seconds N] [--no-callgrind] [--write FILE]
Needs wrk, nginx and valgrind. Loads loopback addresses only, and stops by itself.
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TICK = os.sysconf("SC_CLK_TCK")
KEY = "sk-bench"
TOKENS = 64
# What a stream of the simulator consists of: the role, the tokens, the finish, [DONE].
FRAMES = TOKENS + 3
PAD = "x" * 500
QUESTION = "Tell me something about the sea and the ships that sail on it, in a few sentences."


def request(stream, pad=0):
    messages = [{"role": "system", "content": PAD + "y" * pad}, {"role": "user", "content": QUESTION}]
    body = {"model": "sim", "messages": messages, "temperature": 0.7}
    if not stream:
        body |= {"max_tokens": 16}
    else:
        body |= {"stream": True, "stream_options": {"include_usage": False}, "max_tokens": TOKENS}
    return json.dumps(body)


# name, unit, body, connections, units in a request
CASES = [
    ("plain answers, 1 connection", "request", request(False), 1, 1),
    ("plain answers, 64 connections", "request", request(False), 64, 1),
    (f"streams of {TOKENS} tokens, 1 connection", "frame", request(True), 1, FRAMES),
    (f"streams of {TOKENS} tokens, 64 connections", "frame", request(True), 64, FRAMES),
    ("bodies of 2 MB, 4 connections", "request", request(False, 2_000_000), 4, 1),
]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pinned(core, command):
    """On a machine with cores to spare, the measured process has one to itself."""
    return ["taskset", "-c", str(core), *command] if (os.cpu_count() or 1) > 1 else command


class Server:
    """A process under measurement, or beside it."""

    def __init__(self, name, port, command, core, env=None):
        self.name, self.port = name, port
        # Nothing of the surroundings may change what is measured.
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("FLOTILLA_", "OTEL_"))}
        self.process = subprocess.Popen(
            pinned(core, command),
            env=clean | (env or {}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.wait_until_ready()
        self.pid = self.worker()

    def wait_until_ready(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                sys.exit(f"{self.name} ended with {self.process.returncode} before it was ready")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        sys.exit(f"{self.name} is not ready after 60 s")

    def worker(self):
        """nginx works in a child."""
        if self.name != "nginx":
            return self.process.pid
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(children.read_text().split()[0])

    def cpu(self):
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory(self, figure):
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"{figure}:\s+(\d+) kB", status)[1]) / 1024

    def stop(self):
        self.process.send_signal(signal.SIGINT if self.name == "flotilla" else signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_all(binary, folder):
    ports = {name: free_port() for name in ("sim", "nginx", "flotilla", "admin")}
    sim = Server(
        "sim",
        ports["sim"],
        [binary, "sim"],
        1,
        {
            "FLOTILLA_SIM_LISTEN": f"127.0.0.1:{ports['sim']}",
            # For streams; plain requests ask for fewer, as many as the static answer has.
            "FLOTILLA_SIM_TOKENS": str(TOKENS),
            "FLOTILLA_WORKERS": "1",
            "FLOTILLA_LOG": "warn",
        },
    )
    (folder / "nginx.conf").write_text(
        f"""
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_max_body_size 64m; client_body_buffer_size 4m; proxy_buffering off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream sim {{ server 127.0.0.1:{ports['sim']}; keepalive 128; }}
  server {{
    listen 127.0.0.1:{ports['nginx']}; keepalive_requests 1000000000;
    location / {{ proxy_pass http://sim; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""
    )
    nginx = Server("nginx", ports["nginx"], ["nginx", "-c", f"{folder}/nginx.conf"], 0)
    env = flotilla_env(ports, folder)
    return sim, nginx, Server("flotilla", ports["flotilla"], [binary, "serve"], 0, env), env


def flotilla_env(ports, folder):
    (folder / "fleet.yaml").write_text(
        f"""
providers: {{ sim: {{ protocol: openai, base_url: "http://127.0.0.1:{ports['sim']}/v1", api_key: up }} }}
targets: {{ sim: {{ provider: sim }} }}
pools: {{ sim: {{ tiers: [[sim]] }} }}
keys: [{{ name: bench, key: {KEY} }}]
"""
    )
    return {
        "FLOTILLA_CONFIG": f"{folder}/fleet.yaml",
        "FLOTILLA_LISTEN": f"127.0.0.1:{ports['flotilla']}",
        "FLOTILLA_ADMIN_LISTEN": f"127.0.0.1:{ports['admin']}",
        "FLOTILLA_WORKERS": "1",
        "FLOTILLA_LOG": "warn",
    }


def script(folder, body):
    """The wrk script that posts this body."""
    path = folder / "post.lua"
    path.write_text(
        'wrk.method = "POST"\n'
        'wrk.headers["content-type"] = "application/json"\n'
        f'wrk.headers["authorization"] = "Bearer {KEY}"\n'
        f"wrk.body = [==[{body}]==]\n"
    )
    return path


def load(server, folder, body, connections, seconds):
    """Requests, requests/s, p50 and p99 in milliseconds, CPU seconds of the server."""
    before = server.cpu()
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s"]
    command += [str(script(folder, body)), f"http://127.0.0.1:{server.port}/v1/chat/completions"]
    output = subprocess.run(pinned(1, command), capture_output=True, text=True, check=True).stdout
    cpu = server.cpu() - before
    if "Non-2xx" in output or "Socket errors" in output:
        sys.exit(f"{server.name} failed requests:\n{output}")
    count = int(re.search(r"(\d+) requests in", output)[1])
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])
    scale = {"us": 0.001, "ms": 1, "s": 1000}
    latency = {
        share: float(value) * scale[unit]
        for share, value, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s)\b", output)
    }
    return count, rate, latency["50"], latency["99"], cpu


def first_token(server, times=200):
    """Milliseconds from sending a stream's request to its first event with content, sorted."""
    body = request(True).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    samples = []
    with socket.create_connection(("127.0.0.1", server.port), 5) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(times):
            begun = time.perf_counter()
            client.sendall(head + body)
            seen, first = b"", None
            while not seen.endswith(b"0\r\n\r\n"):
                seen += client.recv(65536)
                if first is None and b'"content":"' in seen.replace(b'"content":""', b""):
                    first = time.perf_counter()
            samples.append((first - begun) * 1000)
    return sorted(samples)


def instructions(binary, env, folder, body, count):
    """A profile of so many requests, by callgrind, after as many to warm up."""
    port = int(env["FLOTILLA_LISTEN"].rsplit(":", 1)[1])
    out = folder / "callgrind.out"
    command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
    node = Server("flotilla", port, [*command, binary, "serve"], 0, env)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()

    def run(times):
        with socket.create_connection(("127.0.0.1", port), 30) as client:
            for _ in range(times):
                client.sendall(head + body.encode())
                seen = b""
                while True:
                    seen += client.recv(65536)
                    if seen.endswith(b"0\r\n\r\n"):
                        break
                    length = re.search(rb"content-length: (\d+)\r\n", seen)
                    end = seen.find(b"\r\n\r\n")
                    if length and end >= 0 and len(seen) >= end + 4 + int(length[1]):
                        break

    try:
        run(200)
        switch = ["callgrind_control", "-i"]
        subprocess.run([*switch, "on", str(node.pid)], check=True, capture_output=True)
        run(count)
        subprocess.run([*switch, "off", str(node.pid)], check=True, capture_output=True)
    finally:
        node.stop()
    return Profile(out, count)


class Profile:
    """What callgrind counted, per request."""

    def __init__(self, out, count):
        text = out.read_text()
        self.instructions = int(re.findall(r"^(?:totals|summary): (\d+)", text, re.M)[-1]) / count
        names = dict(re.findall(r"^c?fn=\((\d+)\) (.+)$", text, re.M))
        calls = re.findall(r"^cfn=\((\d+)\).*\n(?:cfi=.*\n|cob=.*\n)*calls=(\d+)", text, re.M)
        allocating = {"malloc", "calloc", "realloc"}
        made = sum(int(times) for name, times in calls if names.get(name) in allocating)
        self.allocations = made / count
        self.allocators = self.callers(text, names, allocating, count)
        command = ["callgrind_annotate", "--threshold=80", str(out)]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = re.findall(r"^ *([\d,]+) \(.*?\)  ([^:\s]*):(.+?)(?: \[.*\])?$", lines, re.M)
        costs = [(int(cost.replace(",", "")) / count, name) for cost, _, name in found]
        self.costs = [(cost, name) for cost, name in costs if "PROGRAM TOTALS" not in name][:10]


    @staticmethod
    def callers(text, names, allocating, count):
        """Who allocates how often for a request, most often first."""
        made, caller, callee = {}, None, None
        for line in text.splitlines():
            if found := re.match(r"fn=\((\d+)\)", line):
                caller = names.get(found[1])
            elif found := re.match(r"cfn=\((\d+)\)", line):
                callee = names.get(found[1])
            elif (found := re.match(r"calls=(\d+)", line)) and callee in allocating:
                made[caller] = made.get(caller, 0) + int(found[1]) / count
        listed = sorted(made.items(), key=lambda pair: -pair[1])
        return [(times, name) for name, times in listed if times >= 0.5]


def table(rows):
    head = "| case | through | per s | p50 ms | p99 ms | CPU us (min) | CPU us (median) | ratio to nginx |"
    return "\n".join([head, "|---|---|---|---|---|---|---|---|", *rows])


def measure(servers, folder, rounds, seconds):
    rows = []
    for name, unit, body, connections, units in CASES:
        results = {server.name: [] for server in servers}
        for _ in range(rounds):
            for server in servers:
                results[server.name].append(load(server, folder, body, connections, seconds))
        cost = {
            server: sorted(cpu / count / units * 1e6 for count, _, _, _, cpu in runs)
            for server, runs in results.items()
        }
        for server, runs in results.items():
            rate = statistics.median(run[1] for run in runs)
            p50, p99 = (statistics.median(run[index] for run in runs) for index in (2, 3))
            least, median = cost[server][0], statistics.median(cost[server])
            ratio = f"{median / statistics.median(cost['nginx']):.2f}x" if server != "sim" else ""
            label = f"{name} (per {unit})" if server == "sim" else ""
            through = "(directly)" if server == "sim" else server
            rows.append(
                f"| {label} | {through} | {rate:.0f} | {p50:.2f} | {p99:.2f} "
                f"| {least:.1f} | {median:.1f} | {ratio} |"
            )
            print(rows[-1], flush=True)
    return rows


def simulator(sim, binary, folder, rounds, seconds):
    """CPU per plain answer of the simulator, beside that of a static answer on the same stack."""
    port = free_port()
    path = str(pathlib.Path(binary).parent / "examples/static_answer")
    static = Server("static answer", port, [path, f"127.0.0.1:{port}"], 1)
    cost = {sim.name: [], static.name: []}
    try:
        for _ in range(rounds):
            for server in (sim, static):
                count, _, _, _, cpu = load(server, folder, request(False), 16, seconds)
                cost[server.name].append(cpu / count * 1e6)
    finally:
        static.stop()
    least = {name: min(costs) for name, costs in cost.items()}
    median = {name: statistics.median(costs) for name, costs in cost.items()}
    return (
        f"CPU per plain answer of the simulator: {least['sim']:.1f} us (min),"
        f" {median['sim']:.1f} us (median); of a static answer: {least[static.name]:.1f} us,"
        f" {median[static.name]:.1f} us; ratio {least['sim'] / least[static.name]:.2f} (min),"
        f" {median['sim'] / median[static.name]:.2f} (median)."
    )


def describe(binary):
    cpu = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    commit = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    size = pathlib.Path(binary).stat().st_size / 2**20
    return (
        f"{datetime.date.today()}, commit {commit}, {os.cpu_count()} cores"
        f" ({cpu[1].strip() if cpu else 'unknown'}), binary of {size:.0f} MiB"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=str(ROOT / "target/release/flotilla"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--no-callgrind", action="store_true")
    parser.add_argument("--write", help="append the result to this file")
    options = parser.parse_args()
    missing = [tool for tool in ("wrk", "nginx", "valgrind", "taskset") if not shutil.which(tool)]
    if missing:
        sys.exit(f"missing: {', '.join(missing)}. On Debian: apt-get install wrk nginx valgrind")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        *servers, env = start_all(options.binary, folder)
        try:
            idle = servers[2].memory("VmRSS")
            rows = measure(servers, folder, options.rounds, options.seconds)
            tokens = {server.name: first_token(server) for server in servers}
            peak = servers[2].memory("VmHWM")
            lines = [f"## {describe(options.binary)}", "", table(rows), ""]
            lines.append("| time to first token | p50 ms | p99 ms |\n|---|---|---|")
            for server, samples in tokens.items():
                p50, p99 = samples[len(samples) // 2], samples[len(samples) * 99 // 100]
                lines.append(f"| {server} | {p50:.2f} | {p99:.2f} |")
            lines += ["", f"Memory of the node: idle {idle:.1f} MiB, peak {peak:.1f} MiB.", ""]
            lines += [simulator(servers[0], options.binary, folder, options.rounds, options.seconds), ""]
            if not options.no_callgrind:
                servers.pop().stop()
                plain = instructions(options.binary, env, folder, request(False), 2000)
                stream = instructions(options.binary, env, folder, request(True), 300)
                lines.append(
                    f"Counted by callgrind: {plain.instructions:,.0f} instructions and"
                    f" {plain.allocations:.0f} allocations per plain request,"
                    f" {stream.instructions / FRAMES:,.0f} and {stream.allocations / FRAMES:.1f}"
                    " per frame of a stream."
                )
                lines += ["", "The ten largest costs of a plain request (own instructions):", ""]
                lines += [f"- {cost:,.0f} `{name}`" for cost, name in plain.costs]
                lines += ["", "Who allocates, times for a plain request:", ""]
                lines += [f"- {times:.0f} `{name[:100]}`" for times, name in plain.allocators]
        finally:
            for server in servers:
                server.stop()
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        with open(options.write, "a", encoding="utf-8") as file:
            file.write("\n" + text)


if __name__ == "__main__":
    main()
