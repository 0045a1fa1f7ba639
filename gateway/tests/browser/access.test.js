// Every page, on a phone and a desk, light and dark: what axe finds, what does not fit, what a keyboard reaches.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { Gate } from "./gate.js";
import { AXE, DESK, PHONE, device, fits, go, launch, say, shot } from "./pages.js";

let browser;
let gate;
before(async () => {
  browser = await launch();
  gate = await (await Gate.make()).up();
  const page = await device(browser, gate);
  await say(page, "read my mail");
  await page.locator("[data-card][data-open=true]").waitFor({ timeout: 30000 });
  await page.locator("[data-card] input").fill("they are not to know");
  await page.click("text=Deny");
  await page.waitForSelector(".under-way:empty", { state: "attached", timeout: 30000 });
  await say(page, "send my notes to ann@outside.example");
  await page.locator("[data-card][data-open=true]").waitFor({ timeout: 30000 });
  await page.context().close();
});
after(async () => {
  await browser?.close();
  await gate?.destroy();
});

const PAGES = ["/", "/inbox", "/audit", "/audit?text=nowhere-to-be-found&kind=mcp", "/servers", "/status", "/login", "/g/nowhere"];

for (const [width, options] of [["phone", PHONE], ["desk", DESK]]) {
  for (const colorScheme of ["light", "dark"]) {
    test(`pages on a ${width}, ${colorScheme}`, async () => {
      const page = await device(browser, gate, { ...options, colorScheme });
      const story = (await gate.rows("audit", "list")).find((row) => row.approval);
      const question = (await gate.rows("approvals"))[0];
      for (const path of [...PAGES, "/audit/" + story.id, "/inbox/" + question.id]) {
        await page.goto(gate.url + path);
        await page.waitForSelector("main:not([aria-busy])");
        for (const summary of await page.$$("main summary")) await summary.click();
        const name = path.split(/[/?]/)[1] || "chat";
        const which = path.startsWith("/audit/") ? "story" : path.startsWith("/inbox/") ? "question" : path.includes("?") ? "nothing" : name;
        await shot(page, `${which}-${width}-${colorScheme}`);
        // Not as a script of the page: its policy would have none.
        await page.evaluate(readFileSync(AXE, "utf8"));
        const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
        const problems = found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.target.join(" ") + " " + (node.any[0]?.message ?? "")).join("; ")}`);
        assert.deepEqual(problems, [], `${path} on a ${width}, ${colorScheme}`);

        await fits(page);
        assert.equal(await page.locator("h1").count(), 1, path);
      }
      assert.deepEqual(page.wrong, []);
      await page.context().close();
    });
  }
}

test("a keyboard is enough", async () => {
  const page = await device(browser, gate);
  await page.goto(gate.url + "/inbox");
  await page.waitForSelector("[data-card][data-open=true]");
  const focused = () => page.evaluate(() => document.activeElement.innerText?.trim() || document.activeElement.name || document.activeElement.tagName);
  await page.keyboard.press("Tab");
  assert.equal(await focused(), "Skip to content");
  assert.ok((await page.locator(".skip").boundingBox()).width > 50, "the link is not seen");
  await page.keyboard.press("Enter");
  const order = [];
  while (!order.includes("Deny") && order.length < 20) {
    await page.keyboard.press("Tab");
    order.push(await focused());
    const ring = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.notEqual(ring, "none", `no ring at ${order.at(-1)}`);
  }
  const answers = order.slice(order.indexOf("Allow once"));
  assert.deepEqual(answers, ["Allow once", "Allow for this task", "Always…", "Change…", "reason", "Deny"]);
  // Enter in the reason is a no.
  await page.keyboard.press("Shift+Tab");
  await page.keyboard.type("not by keyboard");
  await page.keyboard.press("Enter");
  await page.waitForSelector("[data-cards=settled] .told:has-text('not by keyboard')");
  assert.ok(await page.evaluate(() => document.activeElement.matches("[data-card]")), "the focus is lost");
  await go(page, "Chat");
  await page.waitForSelector("section.chat");
  assert.equal(await page.evaluate(() => document.activeElement.tagName), "H1");
  assert.deepEqual(page.wrong, []);
});
