// Pages: fetched with the token into the shell, one after the other without a new shell.

let title = "";

function tellTitle() {
  const count = waiting.size ? `(${waiting.size}) ` : "";
  document.title = `${count}${title ? title + " · " : ""}Portcullis`;
}

let turn = 0;
let shown = "";

/** Shows the page of an address. */
async function show(url, { focus = true, again = false } = {}) {
  const mine = ++turn;
  shown = url.pathname + url.search;
  const main = document.querySelector("main");
  main.setAttribute("aria-busy", "true");
  let section;
  try {
    const answer = await ask(url.pathname + url.search);
    if (answer.ok) section = element(await answer.text());
    else section = failed((await answer.json().catch(() => ({}))).error ?? `The gateway answered ${answer.status}.`);
  } catch {
    section = failed("The gateway does not answer.");
  }
  if (mine !== turn) return;
  const scroll = window.scrollY;
  main.replaceChildren(section);
  main.removeAttribute("aria-busy");
  main.className = "page-" + (section.dataset.page ?? "none");
  title = section.dataset.title ?? "";
  tellTitle();
  tellTimes(section);
  for (const link of document.querySelectorAll("[data-nav]")) {
    const page = { question: "inbox", story: "log" }[section.dataset.page] ?? section.dataset.page;
    if (link.dataset.nav === page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  chat = null;
  if (section.dataset.group) openChat(section);
  window.scrollTo(0, again ? scroll : 0);
  if (focus && !again) {
    const heading = section.querySelector("h1");
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
  }
  if (!again) follow(section.dataset.group, Number(section.dataset.newest ?? 0), hear);
}

function failed(text) {
  const section = element('<section data-title="Not shown"><h1>This cannot be shown</h1><p class="nothing"></p><p><button type="button" class="quiet" data-do="again">Try again</button></p></section>');
  section.querySelector(".nothing").textContent = visible(text);
  return section;
}

let soon = 0;
function hear(name, data) {
  hearQuestion(name, data);
  hearChat(name, data);
  if (name === "server" && document.querySelector('[data-page="servers"]')) {
    clearTimeout(soon);
    soon = setTimeout(() => show(location, { again: true }), 300);
  }
  if (name === "server" && document.querySelector("[data-pins]")) {
    clearTimeout(soon);
    soon = setTimeout(showPins, 300);
  }
}

function go(url) {
  history.pushState(null, "", url);
  show(url);
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
  if (link && plain && link.origin === location.origin && !link.hash) {
    event.preventDefault();
    go(new URL(link.href));
  }
  const button = event.target.closest("button[data-do]");
  if (button) DO[button.dataset.do](button);
});
window.addEventListener("popstate", () => {
  // The skip link changes nothing but the fragment.
  if (location.pathname + location.search !== shown) show(location);
});

document.addEventListener("submit", (event) => {
  const form = event.target.closest("form.filters");
  if (!form) return;
  event.preventDefault();
  const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
  go(new URL(`/audit?${query}`, location));
});
document.addEventListener("change", (event) => {
  if (event.target.matches("form.filters select")) event.target.form.requestSubmit();
});

const DO = {
  revoke: revokeRule,
  take: takeRule,
  again: () => show(location),
  async link(button) {
    const panel = button.closest(".panel");
    try {
      const { url } = await change("POST", "/links", {});
      const field = panel.querySelector(".link");
      field.hidden = false;
      const input = field.querySelector("input");
      input.value = url;
      input.focus();
      input.select();
    } catch (error) {
      panel.querySelector(".problem").textContent = error.message;
    }
  },
  async leave(button) {
    try {
      await change("DELETE", "/session");
      toLogin();
    } catch (error) {
      button.closest(".panel").querySelector(".problem").textContent = error.message;
    }
  },
};

if (token) show(location, { focus: false });
