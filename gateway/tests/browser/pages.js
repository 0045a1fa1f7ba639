// Browsers on the console: a desk and a phone, light and dark.

import { createRequire } from "node:module";
import { mkdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { SHOTS } from "./gate.js";

const require = createRequire(join(resolve(import.meta.dirname, "../../.."), "target/browser/"));
const { chromium } = require("playwright-core");
export const AXE = require.resolve("axe-core/axe.min.js");

export const DESK = { viewport: { width: 1280, height: 800 } };
export const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true };

const QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

export function launch() {
  mkdirSync(SHOTS, { recursive: true });
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: QUIET });
}

/** A device that is logged in, with everything that went wrong on its pages. */
export async function device(browser, gate, options = DESK, ...who) {
  const context = await browser.newContext({ timezoneId: "UTC", locale: "en-GB", reducedMotion: "reduce", ...options });
  const page = await context.newPage();
  page.wrong = [];
  page.on("pageerror", (error) => page.wrong.push(String(error)));
  page.on("console", (message) => {
    // A stream that breaks with the gateway is told here too.
    if (message.type() === "error" && !/ERR_|Failed to load resource/.test(message.text())) page.wrong.push(message.text());
  });
  await page.goto(await gate.cli("login", ...who));
  await page.click("button");
  await page.waitForSelector("main > section");
  return page;
}

/** Follows a link of the navigation. */
export async function go(page, name) {
  await page.click(`nav[aria-label=Pages] a:has-text("${name}")`);
  await page.waitForSelector(`main > section:has(h1:text-is("${name}")), main > section[data-page="${name.toLowerCase()}"]`);
}

export async function say(page, text) {
  await page.fill("textarea", text);
  await page.click('.composer button[type="submit"]');
}

export function shot(page, name) {
  return page.screenshot({ path: join(SHOTS, name + ".png") });
}

/** Fails, naming what sticks out, where a page is wider than its window. */
export async function fits(page) {
  const wide = await page.evaluate(() => {
    const limit = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= limit) return [];
    const all = [...document.querySelectorAll("body *")].filter((one) => one.getBoundingClientRect().right > limit + 1);
    return all.map((one) => `${one.tagName}.${one.className} ${one.getBoundingClientRect().right}`);
  });
  if (wide.length) throw new Error(`${page.url()} does not fit: ${wide.join(", ")}`);
}
