// What the demo takes, measured as a person would see it: `.ci/browser figures` prints this, docs/benchmarks.md keeps it.

import { readFile, readdir } from "node:fs/promises";
import { Gate, until } from "./gate.js";
import { DESK, launch, say } from "./pages.js";

const now = () => performance.now();
const figures = [];
const figure = (what, value) => figures.push(`${what.padEnd(64)}${value}`);
const ms = (from, to) => `${Math.round(to - from)} ms`;

/** The resident memory of a process and all that descends from it, in MiB. */
async function memory(root) {
  const parents = new Map();
  const resident = new Map();
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
    parents.set(Number(pid), Number(/^PPid:\s+(\d+)/m.exec(status)?.[1]));
    resident.set(Number(pid), Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0));
  }
  const descends = (pid) => pid === root || (parents.get(pid) > 1 && descends(parents.get(pid)));
  const family = [...parents.keys()].filter(descends);
  const mib = (pids) => (pids.reduce((sum, pid) => sum + resident.get(pid), 0) / 1024).toFixed(1);
  return `${mib([root])} MiB, with its ${family.length - 1} processes ${mib(family)} MiB`;
}

const browser = await launch();
const gate = await Gate.make();
try {
  const begun = now();
  await gate.up();
  figure("`up` on a new machine to `ready`", ms(begun, now()));
  figure("memory when nobody has spoken", await memory(gate.process.pid));

  const page = await (await browser.newContext(DESK)).newPage();
  let weight = 0;
  let requests = 0;
  page.on("requestfinished", async (request) => {
    const sizes = await request.sizes().catch(() => null);
    if (sizes) {
      requests += 1;
      weight += sizes.responseBodySize + sizes.responseHeadersSize;
    }
  });
  const link = /http\S+\/login#\S+/.exec(gate.said)[0];
  await page.goto(link);
  const clicked = now();
  await page.click("button");
  await page.waitForSelector("section.chat");
  figure("click on the link's button to the chat", ms(clicked, now()));
  await page.waitForLoadState("load");

  const text = page.waitForFunction(() => document.querySelector(".writing .words, .item.agent, [data-kind=agent]")?.textContent);
  const said = now();
  await say(page, "read my mail");
  await text;
  figure("first message to the agent's first text (its process starts)", ms(said, now()));
  const card = page.locator("[data-card][data-open=true]");
  await card.waitFor({ timeout: 30000 });
  figure("first message to the card (9 calls of tools, 5 of the model)", ms(said, now()));
  figure("memory while it waits", await memory(gate.process.pid));

  const id = (await gate.question()).id;
  const allowed = now();
  await card.locator("button:has-text('Allow once')").click();
  await page.waitForSelector("[data-card][data-open=true]", { state: "detached" });
  figure("click to the settled card", ms(allowed, now()));
  await until(async () => (await gate.rows("approvals", "--all")).find((one) => one.id === id).outcome === "ok", "execution");
  figure("`up` to the first approved call, done", ms(begun, now()));
  figure("everything the browser was sent from login to here", `${(weight / 1024).toFixed(0)} KiB in ${requests} requests`);
} finally {
  await browser.close();
  await gate.destroy();
}
console.log(figures.join("\n"));
