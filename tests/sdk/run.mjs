// Runs every client of tests/sdk against real nodes, all suites at the same time.
//
//   node tests/sdk/run.mjs path/to/flotilla path/to/installed [suite ...]
//
// `open` is a node as a newcomer starts it, with its own simulator; `keyed` serves fleet.yaml, with
// `flotilla sim` and the scripted provider behind it. A suite is a process of its own; it finds the
// addresses in its environment. Afterwards both nodes must have nothing in flight and drain.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { startPages } from "./browser/pages.mjs";
import { startProvider } from "./provider.mjs";

const START_MS = 20_000;
const SUITE_MS = 55_000;
const SETTLE_MS = 1_000;
const STOP_MS = 10_000;

const here = path.dirname(fileURLToPath(import.meta.url));
const [binary, installed, ...wanted] = process.argv.slice(2).map((arg) => path.resolve(arg));
const scratch = mkdtempSync(path.join(tmpdir(), "flotilla-sdk-"));
const children = new Set();
const groups = new Set();

/** Whatever happened, nothing outlives this process. */
function killAll() {
  for (const { child } of children) child.kill("SIGKILL");
  for (const group of groups) killGroup(group);
  rmSync(scratch, { recursive: true, force: true });
}

function killGroup(group) {
  try {
    process.kill(-group, "SIGKILL");
  } catch (error) {
    // All of it has ended by itself.
    if (error.code !== "ESRCH") throw error;
  }
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => {
    killAll();
    process.exit(130);
  });
}

// Nothing of the surroundings may lead a client elsewhere or change a node.
const clean = Object.fromEntries(
  Object.entries(process.env).filter(
    ([name]) => !/^(FLOTILLA_|OPENAI_|OTEL_|SDK_)|_API_KEY$|_proxy$/i.test(name),
  ),
);

/** Starts a process of ours and waits until it has said what `ready` looks for. */
async function start(name, command, env, ready) {
  const stdio = ["ignore", "pipe", "pipe"];
  const child = spawn(binary, command, { env: { ...clean, ...env }, stdio });
  const process_ = { name, child, said: "", exit: once(child, "exit") };
  children.add(process_);
  const found = new Promise((resolve) => {
    const hear = (piece) => {
      process_.said += piece;
      const match = ready.exec(process_.said);
      if (match) resolve(match.groups);
    };
    child.stdout.on("data", hear);
    child.stderr.on("data", hear);
  });
  const ended = process_.exit.then(([code]) => {
    throw new Error(`${name} ended with ${code} before it was ready:\n${process_.said}`);
  });
  const late = deadline(START_MS, () => `${name} was not ready in time:\n${process_.said}`);
  process_.at = await Promise.race([found, ended, late]);
  ended.catch(() => {});
  return process_;
}

function deadline(ms, message) {
  return new Promise((_, reject) => setTimeout(() => reject(new Error(message())), ms).unref());
}

/** Runs a suite; resolves with how it ended. */
async function run(suite, env) {
  const started = Date.now();
  const [command, ...args] = suite.command;
  // A group of its own, so that what it started ends with it.
  const child = spawn(command, args, { env: { ...clean, ...env }, cwd: here, detached: true });
  if (child.pid) groups.add(child.pid);
  let said = "";
  child.stdout.on("data", (piece) => (said += piece));
  child.stderr.on("data", (piece) => (said += piece));
  const timer = setTimeout(() => {
    said += `\n${suite.name}: stopped after ${SUITE_MS} ms\n`;
    killGroup(child.pid);
  }, SUITE_MS);
  const [code, signal] = await Promise.race([
    once(child, "close"),
    once(child, "error").then(([error]) => [error.message, null]),
  ]);
  clearTimeout(timer);
  // A browser, for one, leaves processes of its own behind.
  if (child.pid) killGroup(child.pid);
  const seconds = ((Date.now() - started) / 1000).toFixed(1);
  return { ...suite, ok: code === 0, code: code ?? signal, said, seconds };
}

/** What this node counts as not yet ended. */
async function inFlight(admin) {
  const signal = AbortSignal.timeout(START_MS);
  const text = await (await fetch(`http://${admin}/metrics`, { signal })).text();
  return Number(/^flotilla_requests_in_flight (\d+)/m.exec(text)[1]);
}

async function stopNode(node) {
  const until = Date.now() + SETTLE_MS;
  let left = await inFlight(node.at.admin);
  while (left > 0 && Date.now() < until) left = await inFlight(node.at.admin);
  if (left > 0) throw new Error(`${node.name}: ${left} requests in flight after all clients left`);
  node.child.kill("SIGTERM");
  const late = deadline(STOP_MS, () => `${node.name} did not drain in time:\n${node.said}`);
  const [code] = await Promise.race([node.exit, late]);
  if (code !== 0) throw new Error(`${node.name} ended with ${code}:\n${node.said}`);
  if (/panicked/.test(node.said)) throw new Error(`${node.name} panicked:\n${node.said}`);
}

async function main() {
  const own = {
    FLOTILLA_LISTEN: "127.0.0.1:0",
    FLOTILLA_ADMIN_LISTEN: "127.0.0.1:0",
    FLOTILLA_SIM_LISTEN: "127.0.0.1:0",
    FLOTILLA_LAME_DUCK: "0s",
    FLOTILLA_WORKERS: "2",
    FLOTILLA_LOG: "warn,flotilla::app=info",
  };
  const serving = /serves http:..(?<data>[^/]+).v1 .*metrics: http:..(?<admin>[^)]+)\)/;
  const provider = await startProvider();
  const pages = await startPages();
  const keys = {
    SDK_KEY: "fl-sdk",
    SDK_OLD_KEY: "fl-old",
    SDK_NARROW_KEY: "fl-narrow",
    SDK_FEW_KEY: "fl-few",
    SDK_POOR_KEY: "fl-poor",
  };
  // Slow enough that a stream comes in pieces.
  const paced = { ...own, FLOTILLA_SIM_TOKEN_INTERVAL: "5ms" };
  const simulating = /simulated providers on (?<url>http:..[^/]+).v1/;
  const sim = await start("sim", ["sim"], paced, simulating);
  const [open, keyed] = await Promise.all([
    start("open", ["serve"], own, serving),
    start(
      "keyed",
      ["serve"],
      {
        ...own,
        ...keys,
        SDK_SIM: sim.at.url,
        SDK_PROVIDER: provider.url,
        FLOTILLA_CONFIG: path.join(here, "fleet.yaml"),
        FLOTILLA_CORS_ORIGINS: pages.allowed,
      },
      serving,
    ),
  ]);
  const env = {
    ...keys,
    SDK_OPEN: `http://${open.at.data}`,
    SDK_KEYED: `http://${keyed.at.data}`,
    SDK_KEYED_ADMIN: `http://${keyed.at.admin}`,
    SDK_SIM: sim.at.url,
    SDK_PROVIDER: provider.url,
    SDK_INSTALLED: installed,
    SDK_ALLOWED_PAGE: pages.allowed,
    SDK_OTHER_PAGE: pages.other,
    SDK_SCRATCH: scratch,
    HOME: scratch,
    PYTHONDONTWRITEBYTECODE: "1",
  };
  pages.configure(env);

  const python = path.join(installed, "python/bin/python");
  const unittest = (file) => {
    const found = ["unittest", "discover", "-v", "-s", "python", "-p", file];
    return [python, "-W", "ignore", "-m", ...found];
  };
  const node = (file) => {
    const reporter = "--test-reporter=spec";
    return [process.execPath, "--test", reporter, path.join(here, file)];
  };
  const suites = [
    { name: "python-answers", command: unittest("test_answers.py") },
    { name: "python-errors", command: unittest("test_errors.py") },
    { name: "node-answers", command: node("node/answers.test.mjs") },
    { name: "node-errors", command: node("node/errors.test.mjs") },
    { name: "other-make", command: node("node/other_make.test.mjs") },
    { name: "curl", command: node("curl/curl.test.mjs") },
    { name: "readme", command: node("readme.test.mjs") },
    { name: "browser", command: node("browser/browser.test.mjs") },
  ].filter(({ name }) => wanted.length === 0 || wanted.some((arg) => path.basename(arg) === name));

  const results = await Promise.all(suites.map((suite) => run(suite, env)));
  for (const { name, ok, code, said, seconds } of results) {
    const [, tests] = /^(?:Ran|ℹ pass) (\d+)/m.exec(said) ?? [];
    if (ok) console.log(`sdk: ${name}: ok, ${tests} tests in ${seconds} s`);
    else console.error(`--- ${name} said:\n${said}\nsdk: ${name}: FAILED (${code}), ${seconds} s`);
  }
  const failed = results.some(({ ok }) => !ok);
  const show = ({ name, said }) => console.error(`--- ${name} said:\n${said}`);
  if (failed) [keyed, open].forEach(show);
  await Promise.all([stopNode(open), stopNode(keyed)]);
  provider.stop();
  pages.stop();
  return failed ? 1 : 0;
}

let code = 1;
try {
  code = await main();
} catch (error) {
  console.error(`sdk: ${error.stack}`);
} finally {
  killAll();
}
process.exit(code);
