// The way to the gateway: requests with the page's token, and the stream of what happens.

const token = localStorage.getItem("portcullis-token");

function toLogin() {
  // Another tab has logged in or out since: what it left counts, and stays.
  if (localStorage.getItem("portcullis-token") !== token) return location.reload();
  localStorage.removeItem("portcullis-token");
  location.replace("/login");
}
if (!token) toLogin();

/** A request with the page's token. A login that has ended leads to the login page. */
async function ask(path, options = {}) {
  const headers = { "x-portcullis-token": token, ...options.headers };
  if (options.body !== undefined) headers["content-type"] = "application/json";
  // Whatever the path looks like, the token goes nowhere else.
  const answer = await fetch(location.origin + path, { ...options, headers, cache: "no-store" });
  if (answer.status === 401) {
    toLogin();
    throw new Error("logged out");
  }
  return answer;
}

/** A change; throws with the gateway's words where it is refused. */
async function change(method, path, body) {
  const answer = await ask("/api/v1" + path, { method, body: body && JSON.stringify(body) });
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    const error = new Error(visible(told.error || `the gateway answered ${answer.status}`));
    error.status = answer.status;
    throw error;
  }
  return told;
}

/** A part of a page, as an element. The gateway has written it, and escaped what others wrote. */
function element(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content.firstElementChild;
}

// --- what happens -----------------------------------------------------------------------------------

const SILENCE = 40000; // The gateway is heard from every 15 s.
let following = null;

/** Follows what happens from a change on, until something else is followed. */
function follow(group, after, hear) {
  following?.abort();
  const mine = (following = new AbortController());
  let seen = after;
  let left = false;
  (async () => {
    for (let failures = 0; !mine.signal.aborted; ) {
      const broken = new AbortController();
      const stop = () => broken.abort();
      mine.signal.addEventListener("abort", stop);
      if (left) await inSight(hear, mine.signal);
      left = false;
      const unseen = whenUnseen(() => {
        left = true;
        stop();
      });
      try {
        const query = new URLSearchParams({ after: seen });
        if (group) query.set("group", group);
        const answer = await ask("/live?" + query, { signal: broken.signal });
        if (!answer.ok) throw new Error(answer.status);
        failures = 0;
        offline(false);
        for await (const event of events(answer.body, stop)) {
          if (mine.signal.aborted) return;
          hear(event.name, event.data);
          if (event.id) seen = Number(event.id);
        }
      } catch {
        // It broke: from where it was, again.
      }
      stop();
      unseen();
      mine.signal.removeEventListener("abort", stop);
      if (mine.signal.aborted) return;
      if (left) continue;
      failures += 1;
      if (failures > 1) offline(true);
      await pause(Math.min(250 * 2 ** failures, 10000));
    }
  })();
}

// A browser opens few streams to one host at a time: a page that nobody looks at leaves its own to others.
const UNSEEN = 60000;
const LOOK = 30000;

/** Does something once the page was out of sight for a while; gives what takes that back. */
function whenUnseen(act) {
  let timer = 0;
  const look = () => {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(act, UNSEEN);
  };
  document.addEventListener("visibilitychange", look);
  look();
  return () => {
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", look);
  };
}

/** Waits until somebody looks at a page that was left; meanwhile asks now and then what waits for them. */
async function inSight(hear, signal) {
  while (document.hidden && !signal.aborted) {
    const answer = await ask("/api/v1/approvals").catch(() => null);
    if (answer?.ok) hear("open", { ids: (await answer.json()).map((question) => question.id) });
    await pause(LOOK);
  }
}

function pause(ms) {
  return new Promise((done) => {
    const end = () => {
      clearTimeout(timer);
      window.removeEventListener("online", end);
      document.removeEventListener("visibilitychange", end);
      done();
    };
    const timer = setTimeout(end, ms);
    window.addEventListener("online", end);
    document.addEventListener("visibilitychange", end);
  });
}

/** The events of a stream; one that is silent for too long is given up. */
async function* events(body, giveUp) {
  let timer = setTimeout(giveUp, SILENCE);
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(giveUp, SILENCE);
      rest += value;
      const whole = rest.split("\n\n");
      rest = whole.pop();
      for (const text of whole) {
        const event = {};
        for (const line of text.split("\n")) {
          const at = line.indexOf(": ");
          if (at > 0) event[line.slice(0, at)] = line.slice(at + 2);
        }
        if (event.data) yield { name: event.event, id: event.id, data: JSON.parse(event.data) };
      }
    }
  } finally {
    clearTimeout(timer);
  }
}

function offline(is) {
  document.querySelector(".offline").textContent = is ? "The gateway does not answer. Trying again…" : "";
}

function announce(text) {
  document.querySelector(".announce").textContent = text;
}
