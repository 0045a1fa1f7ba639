// Questions: answered here, and changed wherever they are answered.

let calm = 0;

/** Whether nothing can be answered for a moment. */
function isCalm() {
  return calm !== 0;
}

/** What has just come under somebody's finger was not meant by it: where a card comes, goes or changes,
 * none is answered for a moment, for the others move. */
function notYet() {
  const focused = document.activeElement;
  for (const one of document.querySelectorAll("form.decide button, form.pin button, .alike button")) one.disabled = true;
  clearTimeout(calm);
  calm = setTimeout(() => {
    calm = 0;
    for (const one of document.querySelectorAll("form.decide:not([data-sent]) button, form.pin button")) one.disabled = false;
    lookAtCards();
    if (document.activeElement === document.body && focused.isConnected) focused.focus({ preventScroll: true });
  }, 500);
}

/** Puts a card's new state wherever it is shown; what somebody is writing into it stays. */
function showCard(id, html) {
  for (const old of document.querySelectorAll(`[data-card="${CSS.escape(id)}"]`)) {
    const fresh = element(html);
    const reason = old.querySelector("input[name=reason]");
    const input = fresh.querySelector("input[name=reason]");
    const hadFocus = old.contains(document.activeElement);
    const wrote = reason && document.activeElement === reason;
    if (reason && input) input.value = reason.value;
    // What somebody is choosing or changing stays, as long as it can be said.
    const extra = old.querySelector(".extra:not([hidden])");
    if (extra && fresh.querySelector(".extra")) fresh.querySelector(".extra").replaceWith(extra);
    tellTimes(fresh);
    old.replaceWith(fresh);
    if (wrote && input) input.focus();
    else if (hadFocus) focusOn(fresh);
    settle(fresh);
    const asks = (card) => card.dataset.open + Boolean(card.querySelector("[data-anyway]"));
    if (asks(old) !== asks(fresh)) notYet();
    // A no is held back only while nothing is answered; an *allow* also until the card was read.
    else if (old.querySelector("form.decide:not([data-sent]) button.deny:disabled")) {
      for (const one of fresh.querySelectorAll("form.decide button")) one.disabled = true;
    } else {
      lookAtCards();
    }
  }
}

function focusOn(target) {
  target.tabIndex = -1;
  target.focus({ preventScroll: true });
}

/** In the inbox, what was answered moves to the answered. */
function settle(card) {
  const open = card.closest('[data-cards="open"]');
  if (open && card.dataset.open === "false") {
    const hadFocus = card.contains(document.activeElement);
    document.querySelector('[data-cards="settled"]').prepend(card);
    if (hadFocus) focusOn(card);
    tidyInbox();
  }
}

function tidyInbox() {
  for (const list of document.querySelectorAll("[data-cards]")) {
    list.nextElementSibling.hidden = list.childElementCount > 0;
  }
}

/** Asks for the present state of cards that are shown as open and are not. */
async function refreshCards(open) {
  for (const card of document.querySelectorAll('[data-card][data-open="true"]')) {
    const id = card.dataset.card;
    if (open.includes(id)) continue;
    const answer = await ask("/inbox/" + encodeURIComponent(id)).catch(() => null);
    if (!answer?.ok) continue;
    const fresh = element(await answer.text()).querySelector("[data-card]");
    if (fresh) showCard(id, fresh.outerHTML);
  }
}

// The one button that Enter presses is the no.
document.addEventListener("submit", (event) => {
  const form = event.target.closest("form.decide");
  if (!form) return;
  event.preventDefault();
  answer(form, "deny", false);
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("form.decide .answers button.allow[value]");
  if (button) answer(button.form, button.value, "anyway" in button.dataset);
});

async function answer(form, word, anyway, together = false) {
  if (!together && form.querySelector("button.deny").disabled) return;
  const path = "/approvals/" + encodeURIComponent(form.dataset.question);
  const buttons = form.querySelectorAll("button");
  const problem = form.querySelector(".problem");
  for (const one of buttons) one.disabled = true;
  form.dataset.sent = "";
  problem.textContent = "";
  try {
    if (word === "deny") {
      await change("POST", path + "/deny", { reason: form.elements.reason.value || null });
      announce("Denied.");
    } else {
      await change("POST", path + "/approve", { for: word, run_anyway: anyway });
      announce("Allowed.");
    }
    await refreshCards([]);
  } catch (error) {
    problem.textContent = error.message;
    delete form.dataset.sent;
    for (const one of buttons) one.disabled = false;
    if (error.status === 409) await refreshCards([]);
  }
}

// --- servers that are not what was pinned ---------------------------------------------------------------

document.addEventListener("submit", (event) => {
  const form = event.target.closest("form.pin");
  if (!form) return;
  event.preventDefault();
  answerPin(form, "keep");
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("form.pin button.allow");
  if (button) answerPin(button.form, "accept");
});

async function answerPin(form, word) {
  const buttons = form.querySelectorAll("button");
  const problem = form.querySelector(".problem");
  for (const one of buttons) one.disabled = true;
  problem.textContent = "";
  try {
    await change("POST", `/pins/${encodeURIComponent(form.dataset.server)}/${word}`, { question: form.dataset.digest });
    announce(word === "accept" ? "Accepted." : "Kept.");
    await showPins();
  } catch (error) {
    // Changed again: what is there now is another question, and is shown as one.
    if (error.status === 409) await showPins();
    problem.textContent = error.message;
    for (const one of buttons) one.disabled = false;
  }
}

/** Shows the changed servers as they are now. */
async function showPins() {
  const list = document.querySelector("[data-pins]");
  if (!list) return;
  const answer = await ask("/inbox").catch(() => null);
  if (!answer?.ok) return;
  const fresh = element(await answer.text()).querySelector("[data-pins]");
  const asks = (pins) => [...pins.querySelectorAll("form.pin")].map((form) => form.dataset.server + form.dataset.digest).join();
  if (asks(fresh) === asks(list) && fresh.childElementCount === list.childElementCount) return;
  tellTimes(fresh);
  list.replaceWith(fresh);
  notYet();
}

// --- how many wait ------------------------------------------------------------------------------------

const waiting = new Set();

function countWaiting() {
  const count = document.querySelector(".count");
  count.hidden = waiting.size === 0;
  count.textContent = waiting.size > 99 ? "99+" : String(waiting.size || "");
  if (waiting.size) count.setAttribute("aria-label", `${waiting.size} waiting`);
  else count.removeAttribute("aria-label");
  tellTitle();
}

/** What the stream says of questions. */
function hearQuestion(name, data) {
  if (name === "open") {
    waiting.clear();
    for (const id of data.ids) waiting.add(id);
    countWaiting();
    refreshCards(data.ids);
  } else if (name === "approval") {
    const known = waiting.has(data.id);
    if (data.open) waiting.add(data.id);
    else waiting.delete(data.id);
    countWaiting();
    const shown = document.querySelector(`[data-card="${CSS.escape(data.id)}"]`);
    if (shown) showCard(data.id, data.html);
    else if (data.open) {
      const list = document.querySelector('[data-cards="open"]');
      if (list) {
        const card = element(data.html);
        tellTimes(card);
        list.prepend(card);
        tidyInbox();
        notYet();
      }
      if (!known) announce("A question waits for a decision.");
    }
  }
}
