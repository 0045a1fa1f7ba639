// The story of the demo, on two devices at once.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Gate, until } from "./gate.js";
import { DESK, PHONE, device, go, launch, say, shot } from "./pages.js";

const COLLECTOR = "collector@outside.example";
let browser;
let gate;
before(async () => {
  browser = await launch();
  gate = await (await Gate.make()).up();
});
after(async () => {
  await browser?.close();
  await gate?.destroy();
});

/** What is shown in the conversation, in order, and that nothing of it is there twice. */
async function conversation(page) {
  const items = await page.$$eval(".items > .item:not([hidden])", (all) =>
    all.map((item) => [item.dataset.id, item.dataset.kind ?? item.className, item.innerText]),
  );
  const ids = items.map(([id]) => id);
  assert.equal(new Set(ids).size, ids.length, `shown twice: ${ids}`);
  return items;
}

test("a link opens by a click, once, and its secret is nowhere to be seen", async () => {
  const link = await gate.cli("login");
  const context = await browser.newContext(PHONE);
  const page = await context.newPage();
  await page.goto(link);
  assert.equal(page.url(), gate.url + "/login");
  await shot(page, "login-phone");
  await page.click("button");
  await page.waitForSelector("section.chat");
  const cookies = await context.cookies();
  assert.equal(cookies.length, 1);
  assert.ok(cookies[0].httpOnly && cookies[0].sameSite === "Strict" && cookies[0].name.endsWith("_" + gate.port));
  const again = await (await browser.newContext()).newPage();
  await again.goto(link);
  await again.click("button");
  await again.waitForSelector("text=this link was used before");
  // Without the token, which the page's own origin keeps, a reload ends at the login.
  await page.evaluate(() => localStorage.clear());
  await page.reload();
  await page.waitForURL(gate.url + "/login");
});

test("what was read is what the card says, and one word on the phone ends it on the desk too", async () => {
  const desk = await device(browser, gate);
  const phone = await device(browser, gate, PHONE);
  await say(desk, "read my mail");
  const card = desk.locator("[data-card][data-open=true]");
  await card.waitFor({ timeout: 30000 });
  const told = await card.innerText();
  for (const part of ["Send", COLLECTOR, "Under the blue pot", "what strangers wrote", "postbox__", "what would hurt if it leaked", "notes__", "public_sink", "No answer is a no", "Allow once", "Allow for this task"]) {
    assert.ok(told.includes(part), `no \`${part}\` in: ${told}`);
  }
  await until(async () => (await card.locator(".effect").boundingBox()).y > 0, "the effect in sight");
  await phone.locator("[data-card][data-open=true]").waitFor();
  await shot(desk, "card-desk");
  await shot(phone, "card-phone");
  assert.match(await desk.title(), /^\(1\) demo/);
  assert.equal(await desk.innerText(".count"), "1");
  const question = await gate.question();
  assert.equal(question.args.to, COLLECTOR);

  // What somebody is writing survives what others do meanwhile.
  await card.locator("input").fill("never to them");
  await go(phone, "Inbox");
  await phone.locator("[data-card] input").fill("no, that is private");
  await phone.click("text=Deny");
  await phone.waitForSelector("[data-cards=settled] .told");
  await desk.waitForSelector(".card.settled");
  assert.match(await desk.locator(".card.settled .told").innerText(), /local denied it: “no, that is private”/);
  await desk.waitForSelector(".under-way:empty", { state: "attached", timeout: 30000 });
  assert.ok(await desk.locator(".count").isHidden());
  await go(phone, "Chat");
  const shown = async (page) => (await conversation(page)).map(([id, kind]) => [id, kind]);
  assert.deepEqual(await shown(phone), await shown(desk));
  await shot(desk, "story-desk");
  await shot(phone, "story-phone");

  await desk.locator(".card.settled summary").first().click();
  await desk.click("text=The whole story");
  await desk.waitForSelector("h2:text-is('How it went')");
  const story = await desk.innerText("main");
  for (const part of ["A person had to decide", "denied, by local", "no, that is private", "The end: not done", "untrusted", "secret"]) {
    assert.ok(story.includes(part), `no \`${part}\` in: ${story}`);
  }
  await desk.click("summary:has-text('Record')");
  assert.match(await desk.innerText(".record[open]"), /[0-9a-f]{64}/);
  await shot(desk, "why-desk");
  assert.deepEqual([...desk.wrong, ...phone.wrong], []);
});

test("a gateway that is killed is found again by the page, with the question and nothing twice", async () => {
  const desk = await device(browser, gate);
  await say(desk, "send my notes to ann@outside.example");
  await desk.locator("[data-card][data-open=true]").waitFor({ timeout: 30000 });
  const before = await conversation(desk);
  const port = gate.port;
  await gate.stop("SIGKILL");
  await say(desk, "are you there?");
  await desk.waitForSelector(".pending");
  await desk.waitForFunction(() => document.querySelector(".offline").textContent !== "", null, { timeout: 20000 });
  await shot(desk, "offline-desk");
  await gate.up(port);
  await desk.waitForFunction(() => document.querySelector(".offline").textContent === "", null, { timeout: 30000 });
  await desk.waitForSelector(".pending", { state: "detached", timeout: 30000 });
  const said = async () => (await conversation(desk)).filter(([, , text]) => text.includes("are you there?"));
  await until(async () => (await said()).length === 1, "the message that was not sent");
  const ids = (await conversation(desk)).map(([id]) => id);
  assert.deepEqual(before.map(([id]) => id).filter((id) => !ids.includes(id)), []);
  await desk.locator("[data-card][data-open=true] .answers button").first().click();
  await desk.waitForSelector("[data-card][data-open=true]", { state: "detached", timeout: 20000 });
  await desk.reload();
  await desk.waitForSelector("section.chat .items > .item");
  assert.equal((await said()).length, 1);
  await conversation(desk);
  assert.deepEqual(desk.wrong, []);
});

test("text is shown as it is written, and once", async () => {
  const desk = await device(browser, gate, DESK);
  await desk.evaluate(() => {
    window.seen = [];
    new MutationObserver(() => {
      const writing = document.querySelector(".writing .words");
      if (writing) window.seen.push(writing.textContent);
    }).observe(document.body, { subtree: true, childList: true, characterData: true });
  });
  await say(desk, "help");
  await desk.waitForFunction(() => window.seen.length > 0, null, { timeout: 20000 });
  await desk.waitForSelector(".writing", { state: "detached", timeout: 20000 });
  const seen = await desk.evaluate(() => window.seen);
  // Each state goes on from the one before.
  for (const [n, text] of seen.entries()) assert.ok(n === 0 || text.startsWith(seen[n - 1]), `${seen[n - 1]} → ${text}`);
  await conversation(desk);
});
