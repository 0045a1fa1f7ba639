// More than yes or no: what is read to its end first, rules to choose from, changed arguments, and
// questions that are alike.

const readToTheEnd = new Map();

function boxes(card) {
  return [...card.querySelectorAll(".args .value, .destinations li")];
}

/** What of a card does not fit its box and was not scrolled to its end. */
function unread(card) {
  const seen = readToTheEnd.get(card.dataset.card);
  return boxes(card).filter((box, n) => !seen?.has(n) && box.scrollTop + box.clientHeight < box.scrollHeight - 4);
}

/** Nothing that could not be seen is behind an *allow*. */
function guard(card) {
  const form = card.querySelector("form.decide");
  if (!form) return;
  const left = unread(card).length;
  const note = form.querySelector(".unread");
  const text = left ? "Scroll to the end of what does not fit, and you can allow it." : "";
  if (note && note.textContent !== text) note.textContent = text;
  if (isCalm() || "sent" in form.dataset) return;
  for (const one of form.querySelectorAll("button.allow")) one.disabled = left > 0;
}

document.addEventListener(
  "scroll",
  (event) => {
    const card = event.target.closest?.("[data-card]");
    if (!card) return;
    const id = card.dataset.card;
    for (const [n, box] of boxes(card).entries()) {
      if (box.scrollTop + box.clientHeight < box.scrollHeight - 4) continue;
      if (!readToTheEnd.has(id)) readToTheEnd.set(id, new Set());
      readToTheEnd.get(id).add(n);
    }
    guard(card);
    groupAlike();
  },
  true,
);

function lookAtCards() {
  for (const card of document.querySelectorAll('[data-card][data-open="true"]')) guard(card);
  groupAlike();
}
new MutationObserver(() => requestAnimationFrame(lookAtCards)).observe(document.querySelector("main"), { childList: true, subtree: true });

function make(name, text, attributes = {}) {
  const one = document.createElement(name);
  if (text) one.textContent = visible(text);
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
  return one;
}

/** The place below the answers of a card, emptied. */
function extra(form) {
  const place = form.querySelector(".extra");
  place.replaceChildren();
  place.hidden = false;
  return place;
}

function cancel(place, back) {
  const button = make("button", "Cancel", { type: "button", class: "quiet" });
  button.addEventListener("click", () => {
    place.replaceChildren();
    place.hidden = true;
    back.focus();
  });
  return button;
}

/** Sends something about a question and says what is wrong with it where it is. */
async function tell(form, send, said) {
  const problem = form.querySelector(".problem");
  problem.textContent = "";
  try {
    await send();
    announce(said);
    await refreshCards([]);
  } catch (error) {
    problem.textContent = error.message;
    if (error.status === 409) await refreshCards([]);
  }
}

// --- always -------------------------------------------------------------------------------------------

const DAY = 86400;
const LASTS = [["1 day", DAY], ["7 days", 7 * DAY], ["30 days", 30 * DAY], ["90 days", 90 * DAY]];

function offerChoice(offer, name) {
  const item = make("div", "", { class: "offer" });
  const label = make("label");
  const radio = make("input", "", { type: "radio", name });
  radio.offer = offer;
  label.append(radio, make("span", offer.words));
  const more = make("details");
  more.append(make("summary", "As a rule"), make("pre", offer.toml, { tabindex: "0" }));
  item.append(label, make("p", offer.said, { class: "said" }), more);
  return item;
}

async function chooseRule(button) {
  const form = button.form;
  const id = form.dataset.question;
  const path = "/approvals/" + encodeURIComponent(id);
  const place = extra(form);
  const name = "rule-" + id;
  const title = make("p", "From now on, without asking:", { class: "label-line" });
  const list = make("div", "", { class: "offers", role: "radiogroup", "aria-label": "Rules" });
  const until = make("label", "It counts for ", { class: "until" });
  const select = make("select");
  for (const [text, seconds] of LASTS) select.append(make("option", text, { value: seconds }));
  select.value = String(30 * DAY);
  until.append(select);
  const take = make("button", "Allow, and keep this rule", { type: "button", class: "allow" });
  take.disabled = true;
  const row = make("div", "", { class: "row" });
  row.append(take, cancel(place, button));
  place.append(title, list, until, row);
  const fill = async () => {
    take.disabled = true;
    const answer = await ask(`/api/v1${path}/rules?ttl_seconds=${select.value}`);
    const told = await answer.json().catch(() => ({}));
    if (!answer.ok) return list.replaceChildren(make("p", told.error ?? "No rule can be proposed."));
    list.replaceChildren(...told.map((offer) => offerChoice(offer, name)));
    list.querySelector("input")?.focus();
  };
  select.addEventListener("change", fill);
  list.addEventListener("change", () => (take.disabled = unread(form.closest("[data-card]")).length > 0));
  take.addEventListener("click", () => {
    const chosen = list.querySelector("input:checked");
    if (!chosen) return;
    const { width, when } = chosen.offer;
    const body = { for: "always", rule: width, when, ttl_seconds: Number(select.value) };
    tell(form, () => change("POST", path + "/approve", body), "Allowed, with a rule.");
  });
  await fill();
}

// --- edit ---------------------------------------------------------------------------------------------

async function editArguments(button) {
  const form = button.form;
  const id = form.dataset.question;
  const path = "/approvals/" + encodeURIComponent(id);
  const place = extra(form);
  const answer = await ask("/api/v1" + path);
  if (!answer.ok) return;
  const { args } = await answer.json();
  place.append(make("p", "Change the arguments. The agent is told what you changed.", { class: "label-line" }));
  const fields = [];
  for (const [name, value] of Object.entries(args ?? {})) {
    const text = typeof value === "string";
    const field = make("textarea", "", { rows: "1", id: `edit-${id}-${fields.length}`, "aria-label": visible(name), spellcheck: "false" });
    field.value = text ? value : JSON.stringify(value, null, 2);
    field.rows = Math.min(12, field.value.split("\n").length + Math.floor(field.value.length / 60));
    place.append(make("label", text ? name : `${name} (JSON)`, { for: field.id }), field);
    fields.push([name, text, field]);
  }
  const allow = make("button", "Allow as changed", { type: "button", class: "allow" });
  const row = make("div", "", { class: "row" });
  row.append(allow, cancel(place, button));
  place.append(row);
  allow.addEventListener("click", () => {
    const problem = form.querySelector(".problem");
    const changed = {};
    for (const [name, text, field] of fields) {
      try {
        changed[name] = text ? field.value : JSON.parse(field.value);
      } catch {
        problem.textContent = `${visible(name)} is no JSON`;
        return field.focus();
      }
    }
    tell(form, () => change("POST", path + "/edit", { args: changed }), "Allowed as changed.");
  });
  fields[0]?.[2].focus();
}

document.addEventListener("click", (event) => {
  const always = event.target.closest("form.decide button[data-always]");
  if (always) chooseRule(always);
  const edit = event.target.closest("form.decide button[data-edit]");
  if (edit) editArguments(edit);
});

// --- alike --------------------------------------------------------------------------------------------

/** Questions that came together stand together, and can be answered together. Each stays whole. */
function groupAlike() {
  const list = document.querySelector('[data-cards="open"]');
  if (!list) return;
  const groups = new Map();
  for (const card of list.querySelectorAll(":scope > [data-card][data-batch]")) {
    if (card.querySelector("button.allow[value=once]")) groups.set(card.dataset.batch, [...(groups.get(card.dataset.batch) ?? []), card]);
  }
  for (const bar of list.querySelectorAll(":scope > .alike")) {
    if ((groups.get(bar.dataset.alike)?.length ?? 0) < 2) bar.remove();
  }
  for (const [batch, cards] of groups) {
    if (cards.length < 2) continue;
    const ids = cards.map((card) => card.dataset.card).join(" ");
    let bar = list.querySelector(`:scope > .alike[data-alike="${CSS.escape(batch)}"]`);
    if (bar?.dataset.ids !== ids) {
      bar?.remove();
      bar = alikeBar(batch, cards, ids);
      cards[0].before(bar);
      let last = bar;
      for (const card of cards) {
        last.after(card);
        last = card;
      }
    }
    const left = cards.some((card) => unread(card).length > 0);
    if (!isCalm()) {
      bar.querySelector(".allow").disabled = left;
      bar.querySelector(".deny").disabled = false;
    }
  }
}

function alikeBar(batch, cards, ids) {
  const bar = make("div", "", { class: "alike", "data-alike": batch, "data-ids": ids, role: "group", "aria-label": "Alike" });
  const what = cards[0].querySelector(".effect").textContent;
  const allow = make("button", `Allow these ${cards.length} once`, { type: "button", class: "allow" });
  const deny = make("button", `Deny these ${cards.length}`, { type: "button", class: "deny" });
  allow.disabled = deny.disabled = true;
  const each = async (word) => {
    for (const id of ids.split(" ")) {
      const form = document.querySelector(`[data-card="${CSS.escape(id)}"] form.decide`);
      if (form) await answer(form, word, false, true);
    }
  };
  allow.addEventListener("click", () => each("once"));
  deny.addEventListener("click", () => each("deny"));
  const row = make("div", "", { class: "row" });
  row.append(allow, deny);
  bar.append(make("p", `${cards.length} alike: ${what}. Each is below, whole.`), row);
  setTimeout(groupAlike, 600);
  return bar;
}

// --- the page of rules --------------------------------------------------------------------------------

async function onRules(button, send) {
  const problem = button.closest("section").querySelector(".problem");
  problem.textContent = "";
  button.disabled = true;
  try {
    await send();
    await show(location, { again: true });
  } catch (error) {
    problem.textContent = error.message;
    button.disabled = false;
  }
}

function revokeRule(button) {
  return onRules(button, () => change("DELETE", "/rules/" + encodeURIComponent(button.value)));
}

function takeRule(button) {
  const { question, width, when } = button.dataset;
  const body = { question, rule: width, when: when ?? null };
  return onRules(button, () => change("POST", "/rules", body));
}
