// Pages under attack: hostile words everywhere, and another page on the same host.

import assert from "node:assert/strict";
import { copyFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Gate } from "./gate.js";
import { device, fits, go, launch, say, shot } from "./pages.js";

const EVIL = `<img src=x onerror="hacked('argument')"><script>hacked('argument')</script>\u202etxt`;
let browser;
let gate;
before(async () => {
  browser = await launch();
  gate = await Gate.make("[groups.dev]\nservers = []\n");
  await copyFile(join(import.meta.dirname, "hostile.js"), join(gate.scratch, "hostile.mjs"));
  const { writeFile } = await import("node:fs/promises");
  const config = `[mcp_servers.odd]\ncommand = "${process.execPath}"\nargs = ["${gate.scratch}/hostile.mjs"]\n[groups.dev]\nservers = ["odd"]\n`;
  await writeFile(gate.config, config, { mode: 0o600 });
  await gate.up();
});
after(async () => {
  await browser?.close();
  await gate?.destroy();
});

async function call(name, args, signal) {
  const token = await gate.cli("token", "issue", "--group", "dev");
  const meta = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": { name: "test", version: "1" },
    "io.modelcontextprotocol/clientCapabilities": {},
  };
  const ask = (method, params) =>
    fetch(gate.url + "/mcp", {
      method: "POST",
      headers: {
        authorization: "Bearer " + token,
        "content-type": "application/json",
        accept: "application/json, text/event-stream",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": method,
        ...(params.name ? { "mcp-name": `=?base64?${Buffer.from(params.name).toString("base64")}?=` } : {}),
      },
      body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params: { ...params, _meta: meta } }),
      signal,
    }).then((answer) => answer.text());
  const listed = await ask("tools/list", {});
  assert.ok(listed.includes("onmouseover"), listed);
  return ask("tools/call", { name, arguments: args });
}

test("hostile words are text on every page", async () => {
  const page = await device(browser, gate);
  await page.context().addInitScript(() => {
    window.hacks = [];
    window.hacked = (where) => window.hacks.push(where);
  });
  await page.reload();
  await page.waitForSelector("section.chat");
  const blocked = [];
  page.on("console", (message) => /Content Security Policy|refused/i.test(message.text()) && blocked.push(message.text()));
  await say(page, EVIL);
  await page.waitForFunction(() => document.querySelector(".item.person:not(.pending) .bubble"));
  assert.ok((await page.innerText(".bubble")).includes("<script>hacked('argument')</script>\\u{202e}txt"));

  const held = call("odd__do_<b onmouseover=hacked(1)>", { [EVIL]: EVIL, to: EVIL, body: EVIL.repeat(20) });
  await go(page, "Inbox");
  await page.locator("[data-card][data-open=true]").waitFor({ timeout: 20000 });
  await shot(page, "hostile-desk");
  const card = await page.innerText("[data-card]");
  assert.ok(card.includes("<img src=x onerror=") && card.includes("\\u{202e}") && !card.includes("\u202e"), card);
  const look = async () => {
    assert.deepEqual(await page.evaluate(() => window.hacks), []);
    assert.equal(await page.locator("main img, main script, main b[onmouseover], main [onerror]").count(), 0);
    const text = await page.innerText("main");
    assert.ok(!text.includes("\u202e"), JSON.stringify(text));
    await fits(page);
  };
  await look();
  await page.locator("[data-card] input").fill(EVIL);
  await page.click("text=Deny");
  await page.waitForSelector("[data-cards=settled] .told");
  await look();
  assert.match(await held, /NOT EXECUTED/);
  for (const name of ["Log", "Servers", "Status"]) {
    await go(page, name);
    if (name === "Servers") await page.click("summary");
    await look();
  }
  await page.goto(gate.url + "/audit?text=" + encodeURIComponent(EVIL));
  await page.waitForSelector(".stories a, .nothing");
  await look();
  await page.goto(gate.url + "/audit?kind=mcp");
  await page.click(".stories a");
  await page.waitForSelector("h2:text-is('How it went')");
  await look();
  for (const path of ["/g/" + encodeURIComponent(EVIL), "/audit/" + encodeURIComponent(EVIL), "/inbox/" + encodeURIComponent(EVIL)]) {
    await page.goto(gate.url + path);
    await page.waitForSelector("text=This cannot be shown");
    await look();
  }
  // Nothing even tried: what was written never became an element.
  assert.deepEqual(blocked, []);
  assert.deepEqual(page.wrong, []);
});

test("no click lands on what just came under it", async () => {
  const page = await device(browser, gate);
  await go(page, "Inbox");
  const open = page.locator("[data-cards=open] > [data-card]");
  const name = "odd__do_<b onmouseover=hacked(1)>";
  const leaves = new AbortController();
  const first = call(name, { to: "first" }, leaves.signal).catch(() => "gone");
  await page.locator("[data-card] button.allow:enabled").first().waitFor({ timeout: 20000 });
  // What can be pressed at the moment at which the list or a card changes.
  await page.evaluate(() => {
    window.pressable = [];
    const look = () => window.pressable.push(document.querySelectorAll("form.decide button:not(:disabled)").length);
    new MutationObserver(look).observe(document.querySelector("[data-cards=open]"), { childList: true });
  });
  const second = call(name, { to: "second" });
  // The card that was there moves down: neither it nor the new one can be pressed at once.
  await open.nth(1).waitFor({ timeout: 20000 });
  await open.nth(1).locator("button.allow:enabled").first().waitFor();
  leaves.abort();
  // What would have allowed a call is now another question.
  await page.locator("button[data-anyway]:enabled").waitFor({ timeout: 20000 });
  await open.filter({ hasText: "second" }).locator("button.deny").click();
  await page.waitForSelector("[data-cards=settled] .told");
  assert.match(await second, /NOT EXECUTED/);
  await open.locator("button.deny").click();
  await page.waitForFunction(() => document.querySelectorAll("[data-cards=settled] > *").length >= 2);
  assert.equal(await first, "gone");
  const pressable = await page.evaluate(() => window.pressable);
  assert.ok(pressable.length >= 3 && pressable.every((count) => count === 0), JSON.stringify(pressable));
  assert.deepEqual(page.wrong, []);
});

test("a tab with an old login leaves another's alone, and what was refused is not lost", async () => {
  const old = await device(browser, gate);
  const tab = await old.context().newPage();
  await tab.goto(await gate.cli("login"));
  await tab.click("button");
  await tab.waitForSelector("section.chat");
  await go(old, "Status");
  await tab.reload();
  await tab.waitForSelector("section.chat");
  // Three bytes each: the field takes it, the gateway does not.
  const long = "漢".repeat(30000);
  await say(tab, long);
  await tab.waitForSelector(".problem:has-text('64 KiB')");
  assert.equal(await tab.inputValue("textarea"), long);
  assert.equal(await tab.locator(".item.pending").count(), 0);
});

test("a page on another port of this host gets the cookie, and nothing for it", async () => {
  const page = await device(browser, gate);
  const got = [];
  const other = createServer((request, response) => {
    got.push(request.headers.cookie ?? "");
    response.setHeader("content-type", "text/html");
    response.end("<!doctype html><title>other</title>");
  });
  await new Promise((done) => other.listen(0, "127.0.0.1", done));
  try {
    const tab = await page.context().newPage();
    await tab.goto(`http://127.0.0.1:${other.address().port}/`);
    assert.ok(got[0].includes(`portcullis_${gate.port}=ses_`), "cookies ignore ports no longer: this test would show nothing");
    const tried = await tab.evaluate(async (url) => {
      const tried = {};
      const attempt = async (name, ask) => (tried[name] = await ask().then((answer) => answer.status || answer.type, () => "blocked"));
      const json = { "content-type": "application/json" };
      await attempt("read", () => fetch(url + "/api/v1/me", { credentials: "include" }));
      await attempt("opaque", () => fetch(url + "/inbox", { credentials: "include", mode: "no-cors" }));
      await attempt("form", () => fetch(url + "/api/v1/links", { method: "POST", credentials: "include", mode: "no-cors", body: "{}" }));
      await attempt("json", () => fetch(url + "/api/v1/links", { method: "POST", credentials: "include", headers: json, body: "{}" }));
      return tried;
    }, gate.url);
    for (const name of ["read", "json", "opaque", "form"]) assert.ok(["blocked", "opaque"].includes(tried[name]), JSON.stringify(tried));
    const framed = await tab.evaluate(
      (url) =>
        new Promise((done) => {
          const frame = document.createElement("iframe");
          frame.onload = () => done(frame.contentDocument === null ? "closed" : "open");
          frame.src = url + "/inbox";
          document.body.append(frame);
        }),
      gate.url,
    );
    assert.equal(framed, "closed");
    // Whoever runs that server has the cookie, and sends it with what headers they like.
    for (const path of ["/api/v1/me", "/api/v1/approvals", "/live", "/api/v1/events"]) {
      assert.equal((await fetch(gate.url + path, { headers: { cookie: got[0] } })).status, 401, path);
    }
    const shell = await (await fetch(gate.url + "/inbox", { headers: { cookie: got[0] } })).text();
    assert.ok(shell.includes("Loading") && !shell.includes("data-card"));
    const links = (await gate.rows("audit", "list")).filter((row) => row.tool.startsWith("login link"));
    assert.ok(links.every((row) => row.outcome === "ok"));
    assert.equal((await (await page.evaluate(() => fetch("/api/v1/me").then((answer) => answer.status)))), 401);
  } finally {
    other.close();
  }
});
