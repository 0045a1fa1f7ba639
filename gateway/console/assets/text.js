// Text and times as people read them.

// The same characters as `gateway/src/text.rs` spells out; a line break and a tab stay, and so do the
// two without which many an emoji falls apart.
const DECEPTIVE =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200c\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff9-\ufffb\u{e0000}-\u{e0fff}]/gu;

function visible(text) {
  return text.replace(DECEPTIVE, (c) => "\\u{" + c.codePointAt(0).toString(16) + "}");
}

const ABSOLUTE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const RELATIVE = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "long" });

function fromNow(at) {
  const seconds = Math.round((at - Date.now()) / 1000);
  for (const [unit, size] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    if (Math.abs(seconds) >= size) return RELATIVE.format(Math.round(seconds / size), unit);
  }
  return seconds > -5 && seconds <= 0 ? "just now" : RELATIVE.format(seconds, "second");
}

function sameDay(at) {
  return at.toDateString() === new Date().toDateString();
}

/** Says the times below an element in the reader's own zone. */
function tellTimes(root) {
  for (const time of root.querySelectorAll("time[data-time]")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    time.title = at.toString();
    const absolute = sameDay(at) ? CLOCK.format(at) : ABSOLUTE.format(at);
    const how = time.dataset.time;
    const text = how === "ago" ? fromNow(at) : how === "clock" ? absolute : `${fromNow(at)} (${absolute})`;
    if (time.textContent !== text) time.textContent = text;
  }
}
setInterval(() => tellTimes(document), 10000);
