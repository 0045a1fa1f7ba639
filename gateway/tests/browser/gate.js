// Runs the gateway as a person would: a directory of its own, the real binary, its command line.

import { spawn, execFile } from "node:child_process";
import { mkdtemp, rm, writeFile, chmod, mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const ROOT = resolve(import.meta.dirname, "../../..");
const BIN = process.env.PORTCULLIS_BIN ?? join(ROOT, "target/debug/portcullis");
export const SHOTS = join(ROOT, "target/screenshots");

/** Waits until a probe gives something true; fails after some seconds. */
export async function until(probe, what, seconds = 20) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (Date.now() > end) throw new Error(`no ${typeof what === "function" ? what() : what} after ${seconds} s`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

export class Gate {
  /** A directory with a configuration; without one, the demo. */
  static async make(config) {
    const gate = new Gate();
    gate.scratch = await mkdtemp(join(tmpdir(), "portcullis-test-"));
    await chmod(gate.scratch, 0o755);
    gate.config = config ? join(gate.scratch, "portcullis.toml") : null;
    gate.data = join(gate.scratch, "data");
    await mkdir(join(gate.scratch, "home"));
    if (config) await writeFile(gate.config, config, { mode: 0o600 });
    return gate;
  }

  get environment() {
    return { PATH: process.env.PATH, HOME: join(this.scratch, "home"), LANG: "C.UTF-8", RUST_BACKTRACE: "1" };
  }

  get where() {
    return [...(this.config ? ["--config", this.config] : []), "--data", this.data];
  }

  /** Starts it, and waits for `ready`. */
  async up(port = 0) {
    const args = ["up", ...this.where, "--listen", `127.0.0.1:${port}`];
    this.process = spawn(BIN, args, { env: this.environment, cwd: "/", stdio: ["ignore", "pipe", "pipe"] });
    this.said = "";
    this.log ??= "";
    this.process.stdout.on("data", (text) => (this.said += text));
    this.process.stderr.on("data", (text) => (this.log += text));
    this.ended = new Promise((done) => this.process.once("exit", done));
    const ready = await until(() => /^ready (http:\/\/\S+)$/m.exec(this.said), () => `ready:\n${this.said}${this.log}`);
    this.url = ready[1];
    this.port = Number(new URL(this.url).port);
    return this;
  }

  async stop(signal = "SIGINT") {
    if (this.process?.exitCode === null && this.process.signalCode === null) {
      this.process.kill(signal);
      await this.ended;
    }
  }

  async destroy() {
    await this.stop();
    await rm(this.scratch, { recursive: true, force: true });
  }

  async cli(...args) {
    const { stdout } = await run(BIN, [...args, ...this.where], { env: this.environment, cwd: "/" });
    return stdout.trim();
  }

  async rows(...args) {
    return JSON.parse(await this.cli(...args, "--json"));
  }

  /** The one open question. */
  async question() {
    const rows = await until(async () => {
      const rows = await this.rows("approvals");
      return rows.length ? rows : null;
    }, "question");
    return rows[0];
  }
}
