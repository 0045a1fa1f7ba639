// The chat: what is said is sent until it is stored, what is shown is shown once and in order.

let chat = null;

/** Takes up the chat page that is shown. */
function openChat(section) {
  const list = section.querySelector(".items");
  chat = {
    section,
    list,
    log: section.querySelector(".log"),
    group: section.dataset.group,
    me: section.dataset.me,
    items: new Map([...list.children].map((item) => [item.dataset.id, item])),
    writing: new Map(),
    pending: new Map(),
    later: [],
  };
  chat.log.scrollTop = chat.log.scrollHeight;
  const open = list.lastElementChild?.querySelector('[data-card][data-open="true"]');
  if (open) toCard(open);
  chat.log.addEventListener("scroll", () => {
    if (atEnd()) section.querySelector(".newer").hidden = true;
  });
  section.querySelector(".newer").addEventListener("click", () => toEnd());
  section.querySelector(".older").addEventListener("click", older);
  const form = section.querySelector(".composer");
  if (form) compose(form);
  tellUnderWay();
  for (const { id, text } of kept()) send(id, text);
}

function atEnd() {
  return chat.log.scrollHeight - chat.log.scrollTop - chat.log.clientHeight < 60;
}

/** A question is read from its beginning, where its effect stands. */
function toCard(card) {
  const above = card.getBoundingClientRect().top - chat.log.getBoundingClientRect().top;
  if (above < 0) chat.log.scrollTop += above - 12;
}

function toEnd() {
  chat.log.scrollTop = chat.log.scrollHeight;
  chat.section.querySelector(".newer").hidden = true;
}

/** Whether somebody may be about to answer a question: its buttons are in sight. */
function deciding() {
  const { top, bottom } = chat.log.getBoundingClientRect();
  return [...chat.list.querySelectorAll("form.decide")].some((form) => {
    const at = form.getBoundingClientRect();
    return at.bottom > top && at.top < bottom;
  });
}

/** Runs a change of the list, which says whether there is more to see at its end. Who was at the end
 * stays there; who was not, or looks at a question, stays where they read. */
function keepingPlace(change) {
  const follow = atEnd() && !deciding();
  const more = change();
  chat.section.querySelector(".nothing").hidden = chat.list.childElementCount > 0;
  if (follow) toEnd();
  else if (more && !atEnd()) chat.section.querySelector(".newer").hidden = false;
}

/** Shows an item, or its new state, where it belongs. */
function showItem({ id, pos, html }) {
  const item = element(html);
  if (!item) return;
  // Our own words come back: which of the pending ones these are is known once they are stored.
  if (item.dataset.kind === "person" && item.dataset.by === chat.me && chat.pending.size && !chat.items.has(id)) {
    chat.later.push({ id, pos, html });
    return;
  }
  const card = item.querySelector("[data-card]");
  tellTimes(item);
  const followed = atEnd() && !deciding();
  keepingPlace(() => {
    chat.writing.get(id)?.remove();
    chat.writing.delete(id);
    const old = chat.items.get(id);
    if (old) {
      const details = old.querySelector("details");
      if (details?.open && item.querySelector("details")) item.querySelector("details").open = true;
      const oldCard = old.querySelector("[data-card]");
      // A card that is unchanged stays, with what is being written into it.
      if (oldCard && card && oldCard.dataset.open === card.dataset.open) card.replaceWith(oldCard);
      old.replaceWith(item);
      chat.items.set(id, item);
      return false;
    } else {
      const after = [...chat.list.children].findLast((one) => Number(one.dataset.pos) < pos);
      if (after) after.after(item);
      else chat.list.prepend(item);
    }
    chat.items.set(id, item);
    return !item.hidden;
  });
  if (card?.dataset.open === "true" && card.isConnected) {
    notYet();
    if (followed) toCard(card);
  }
  tellUnderWay();
}

/** More of a text that is being written: what follows its first `from` characters. */
function showWriting({ id, from, text }) {
  if (chat.items.has(id) && chat.items.get(id).dataset.kind === "agent") return;
  let item = chat.writing.get(id);
  keepingPlace(() => {
    if (!item) {
      item = element('<li class="item agent writing" aria-busy="true"><p class="who">Agent</p><div class="words"><p dir="auto"></p></div></li>');
      item.dataset.pos = Number.MAX_SAFE_INTEGER;
      item.written = [];
      chat.writing.set(id, item);
      chat.list.append(item);
    }
    item.written = item.written.slice(0, from).concat(Array.from(text));
    item.querySelector(".words p").textContent = visible(item.written.join(""));
    return true;
  });
}

function hearChat(name, data) {
  if (!chat) return;
  if (name === "item") showItem(data);
  else if (name === "writing") showWriting(data);
  else if (name === "dropped") {
    chat.writing.get(data.id)?.remove();
    chat.writing.delete(data.id);
  }
}

/** Says what the newest task does, while one is under way. */
function tellUnderWay() {
  const runs = [...chat.list.querySelectorAll(".run")];
  const state = runs.findLast((run) => ["queued", "working", "waiting"].includes(run.dataset.state))?.dataset.state;
  const words = { queued: "Waiting for its turn…", working: "The agent is working…", waiting: "The agent waits for a person." };
  const line = chat.section.querySelector(".under-way");
  const text = words[state] ?? "";
  if (line.textContent !== text) line.textContent = text;
  line.classList.toggle("busy", state === "working");
  const stop = chat.section.querySelector(".stop");
  if (stop) stop.hidden = !state;
}

async function older() {
  const first = chat.list.firstElementChild;
  if (!first) return;
  const here = chat;
  const button = chat.section.querySelector(".older");
  button.disabled = true;
  const answer = await ask(`/g/${encodeURIComponent(chat.group)}?before=${first.dataset.pos}`).catch(() => null);
  button.disabled = false;
  if (!answer?.ok || chat !== here) return;
  const page = element(await answer.text());
  button.hidden = page.dataset.more !== "true";
  const from = chat.log.scrollHeight - chat.log.scrollTop;
  tellTimes(page);
  for (const item of [...page.children]) {
    if (chat.items.has(item.dataset.id)) continue;
    first.before(item);
    chat.items.set(item.dataset.id, item);
  }
  chat.log.scrollTop = chat.log.scrollHeight - from;
}

// --- saying something ---------------------------------------------------------------------------------

function compose(form) {
  const field = form.querySelector("textarea");
  const fit = () => {
    field.rows = Math.min(8, Math.max(1, field.value.split("\n").length));
  };
  field.addEventListener("input", fit);
  field.addEventListener("keydown", (event) => {
    const plain = !event.shiftKey && !event.altKey && !event.isComposing;
    // Where a finger types, a line break is a line break.
    if (event.key === "Enter" && plain && !matchMedia("(pointer: coarse)").matches) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = field.value.trim();
    if (!text) return;
    field.value = "";
    fit();
    field.focus();
    send(crypto.getRandomValues(new Uint32Array(4)).join("-"), text);
    toEnd();
  });
  form.querySelector(".stop").addEventListener("click", async () => {
    try {
      await change("POST", `/groups/${encodeURIComponent(chat.group)}/stop`, {});
      announce("Stopped.");
    } catch (error) {
      complain(error.message);
    }
  });
}

function complain(text) {
  chat.section.querySelector(".foot > .problem").textContent = text;
}

// Nobody sends what somebody else wrote here before them.
const keptAt = () => `portcullis-unsent-${chat.me} ${chat.group}`;

/** What was written here and is not known to be stored: it outlives a reload. */
function kept() {
  try {
    return JSON.parse(sessionStorage.getItem(keptAt())) ?? [];
  } catch {
    return [];
  }
}

function keep(change) {
  sessionStorage.setItem(keptAt(), JSON.stringify(change(kept())));
}

/** What was refused is not lost: it stands where it was written, unless something else does. */
function giveBack({ section }, text) {
  const field = section.querySelector("textarea");
  if (!field || field.value) return;
  field.value = text;
  field.dispatchEvent(new Event("input"));
}

/** Shows a message at once, and sends it until it is stored. The same id is the same message. */
async function send(id, text) {
  const here = chat;
  const item = element('<li class="item person mine pending"><p class="who"></p><div class="bubble"><p dir="auto"></p></div></li>');
  item.dataset.pos = Number.MAX_SAFE_INTEGER;
  item.querySelector(".who").textContent = "Sending…";
  item.querySelector(".bubble p").textContent = visible(text);
  here.pending.set(id, item);
  here.list.append(item);
  here.section.querySelector(".nothing").hidden = true;
  keep((all) => [...all.filter((one) => one.id !== id), { id, text }]);
  complain("");
  for (let tries = 0; chat === here; tries += 1) {
    try {
      await change("POST", `/groups/${encodeURIComponent(here.group)}/messages`, { id, text });
      break;
    } catch (error) {
      if (error.status && error.status < 500) {
        complain(error.message);
        giveBack(here, text);
        break;
      }
      item.querySelector(".who").textContent = "Not sent yet. Trying again…";
      await pause(Math.min(500 * 2 ** tries, 10000));
    }
  }
  if (chat !== here) return; // Whoever comes back finds it kept.
  keep((all) => all.filter((one) => one.id !== id));
  here.pending.delete(id);
  item.remove();
  if (!here.pending.size) for (const late of here.later.splice(0)) showItem(late);
}
