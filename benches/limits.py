#!/usr/bin/env python3
"""What limits cost, and whether a fleet meets them, in one run.

The same plain requests go through nginx, through a node without limits, and through one that asks
six exact limits in Redis for each of them (three scopes: windows, a bucket and permits), in
interleaved rounds. Then fleets of 1, 2, 4 and 8 nodes are asked for more than a limit allows.

Usage: benches/limits.py [--binary PATH] [--rounds N] [--seconds N] [--write FILE]
Needs wrk, nginx and redis-server. Loads loopback addresses only, and stops by itself.
"""

import argparse
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile

import node

CONNECTIONS = (1, 64)
FLEETS = (1, 2, 4, 8)
# What the fleets may admit, and what they are asked for.
LIMIT, DEMAND = 1000, 3000
# None of them is ever met, so that each request takes all of them.
LIMITS = """
limits:
  - { name: key-rpm, scope: key, metric: requests, limit: 100000000, window: 1m }
  - { name: key-tpm, scope: key, metric: tokens, limit: 100000000000, window: 1m }
  - { name: tenant-rpm, scope: tenant, metric: requests, limit: 100000000, window: 1m }
  - { name: tenant-tpm, scope: tenant, metric: tokens, algorithm: token_bucket, limit: 10000000000, window: 1m }
  - { name: slots, scope: tenant, metric: concurrency, limit: 100000 }
  - { name: model-rpm, scope: [tenant, model], metric: requests, limit: 100000000, window: 1m }
"""


class Redis:
    """A redis-server without persistence."""

    def __init__(self, folder):
        port = node.free_port()
        command = ["redis-server", "--port", str(port), "--save", "", "--dir", str(folder)]
        self.server = node.Server("redis", port, command, 1)
        self.url = f"redis://127.0.0.1:{port}"

    def ask(self, *words):
        """One command and its answer, as text."""
        text = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        with socket.create_connection(("127.0.0.1", self.server.port), 5) as client:
            client.sendall(text.encode())
            answer = client.recv(1 << 16).decode()
            length = re.match(r"\$(\d+)\r\n", answer)
            while length and len(answer) < len(length[0]) + int(length[1]):
                answer += client.recv(1 << 16).decode()
        return answer

    def scripts(self):
        """Scripts run since the last reset: how many, and the microseconds of all of them."""
        found = re.search(r"cmdstat_evalsha:calls=(\d+),usec=(\d+)", self.ask("INFO", "commandstats"))
        return (int(found[1]), int(found[2])) if found else (0, 0)


def serve(binary, folder, sim, name, more, env):
    """A node with a document and settings of its own."""
    home = folder / name
    home.mkdir()
    ports = {"sim": sim, "flotilla": node.free_port(), "admin": node.free_port()}
    settings = node.flotilla_env(ports, home)
    document = home / "fleet.yaml"
    document.write_text(document.read_text() + more)
    return node.Server("flotilla", ports["flotilla"], [binary, "serve"], 0, settings | env)


def cost(servers, redis, folder, rounds, seconds):
    rows = []
    for connections in CONNECTIONS:
        results = {name: [] for name in servers}
        asked = []
        for _ in range(rounds):
            for name, server in servers.items():
                redis.ask("CONFIG", "RESETSTAT")
                before = redis.server.cpu()
                run = node.load(server, folder, node.request(False), connections, seconds)
                results[name].append(run)
                if name == "six limits":
                    calls, usec = redis.scripts()
                    cpu = redis.server.cpu() - before
                    asked.append((calls / run[0], usec / max(calls, 1), cpu / run[0] * 1e6))
        per_request = {
            name: sorted(run[4] / run[0] * 1e6 for run in runs) for name, runs in results.items()
        }
        for name, runs in results.items():
            rate, p50, p99 = (statistics.median(run[index] for run in runs) for index in (1, 2, 3))
            least, median = per_request[name][0], statistics.median(per_request[name])
            ratio = median / statistics.median(per_request["nginx"])
            label = f"{connections} connections" if name == "nginx" else ""
            rows.append(
                f"| {label} | {name} | {rate:.0f} | {p50:.2f} | {p99:.2f} | {least:.1f} "
                f"| {median:.1f} | {ratio:.2f}x |"
            )
            print(rows[-1], flush=True)
        calls, usec, cpu = (statistics.median(column) for column in zip(*asked))
        least = min(column[1] for column in asked)
        rows.append(
            f"|  | Redis, per request | {calls:.2f} scripts | {usec:.1f} us each, min {least:.1f} |  "
            f"|  | {cpu:.1f} |  |"
        )
        print(rows[-1], flush=True)
    return rows


def fleets(binary, folder, sim, redis):
    """How many of a demand above the limit fleets of several sizes admit."""
    lines = []
    for size in FLEETS:
        limits = (
            f"limits: [{{ name: hour, scope: tenant, metric: requests, limit: {LIMIT}, "
            "window: 1h, degraded: fail_closed }]\n"
        )
        env = {
            "FLOTILLA_REDIS_URL": redis.url,
            "FLOTILLA_REDIS_PREFIX": f"fleet{size}",
            "FLOTILLA_REDIS_DEADLINE": "2s",
        }
        nodes = [
            serve(binary, folder, sim, f"fleet{size}-{number}", limits, env) for number in range(size)
        ]
        try:
            script = node.script(folder, node.request(False))
            each = DEMAND // size
            # wrk has no number of requests to send, so the script counts them.
            script.write_text(
                script.read_text()
                + f"local sent = 0\nfunction request() sent = sent + 1\n"
                f"if sent > {each} then wrk.thread:stop() end\nreturn wrk.format() end\n"
            )
            runs = [
                subprocess.Popen(
                    ["wrk", "-t1", "-c8", "-d20s", "-s", str(script)]
                    + [f"http://127.0.0.1:{server.port}/v1/chat/completions"],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for server in nodes
            ]
            outputs = [run.communicate()[0] for run in runs]
        finally:
            for server in nodes:
                server.stop()
        asked = sum(int(re.search(r"(\d+) requests in", output)[1]) for output in outputs)
        refused = sum(
            int(found[1])
            for output in outputs
            if (found := re.search(r"Non-2xx or 3xx responses: (\d+)", output))
        )
        lines.append(f"| {size} | {LIMIT} | {asked} | {asked - refused} |")
        print(lines[-1], flush=True)
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=str(node.ROOT / "target/release/flotilla"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--write", help="append the result to this file")
    options = parser.parse_args()
    tools = ("wrk", "nginx", "redis-server", "taskset")
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        sys.exit(f"missing: {', '.join(missing)}. On Debian: apt-get install wrk nginx redis-server")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        sim, nginx, plain, _ = node.start_all(options.binary, folder)
        redis = Redis(folder)
        running = [sim, nginx, plain, redis.server]
        try:
            env = {"FLOTILLA_REDIS_URL": redis.url}
            limited = serve(options.binary, folder, sim.port, "limited", LIMITS, env)
            running.append(limited)
            servers = {"nginx": nginx, "no limits": plain, "six limits": limited}
            rows = cost(servers, redis, folder, options.rounds, options.seconds)
            sizes = fleets(options.binary, folder, sim.port, redis)
        finally:
            for server in reversed(running):
                server.stop()
    head = (
        "| load | through | per s | p50 ms | p99 ms | CPU us (min) | CPU us (median) | ratio to nginx |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    text = "\n".join(
        [f"### Limits: {node.describe(options.binary)}", "", head, *rows, ""]
        + ["| nodes | limit | asked | admitted |\n|---|---|---|---|", *sizes, ""]
    )
    print(text)
    if options.write:
        with open(options.write, "a", encoding="utf-8") as file:
            file.write("\n" + text)


if __name__ == "__main__":
    main()
