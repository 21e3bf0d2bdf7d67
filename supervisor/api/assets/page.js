// Keeps a page up to date from one stream of events. The server renders every screen; this puts the new one in place of the old one, node by
// node, so that focus, what is typed and what is folded out stay. Text of models is set as text, or comes escaped: none of it is markup here.

const main = document.getElementById("main");
const status = document.getElementById("live");
const since = document.getElementById("since");
const pause = document.getElementById("pause");
// A stream that has been silent for longer is stale: the server says every five seconds that it is alive.
const SILENCE = 12_000;
const AGAIN = 2_000;

let known = document.body.dataset.known;
let source = null;
let heard = Date.now();
let again = null;
let paused = false;
let shown = location.pathname + location.search;

function isSame(one, other) {
  return one.nodeType === other.nodeType && one.nodeName === other.nodeName;
}

// Makes `old` what `fresh` is.
function morph(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  if (fresh.hasAttribute("data-keep")) return;
  for (const { name } of [...old.attributes]) {
    // Whether details are folded out is up to the reader.
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (old.nodeName === "TEXTAREA") return;
  const named = new Map();
  for (const child of old.children) if (child.id) named.set(child.id, child);
  let at = old.firstChild;
  for (const want of [...fresh.childNodes]) {
    let have = null;
    if (want.id) have = named.get(want.id) ?? null;
    else if (at && !at.id && isSame(at, want)) have = at;
    if (have && isSame(have, want)) {
      if (have === at) at = at.nextSibling;
      else old.insertBefore(have, at);
      morph(have, want);
    } else {
      old.insertBefore(document.importNode(want, true), at);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function words(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7_200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3_600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

function ages() {
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const passed = Date.now() - Date.parse(time.dateTime);
    const text = passed < 0 ? `in ${words(-passed)}` : `${words(passed)} ago`;
    if (time.textContent !== text) time.textContent = text;
  }
}

function isAtEnd(log) {
  return log && log.scrollHeight - log.scrollTop - log.clientHeight < 40;
}

// Runs `change`; a log whose end was in sight still shows its end.
function keepingEnd(change) {
  const follows = isAtEnd(document.getElementById("log"));
  change();
  const log = document.getElementById("log");
  if (log && follows) log.scrollTop = log.scrollHeight;
}

function place(html) {
  const fresh = new DOMParser().parseFromString(`<main>${html}</main>`, "text/html").querySelector("main");
  keepingEnd(() => {
    morph(main, Object.assign(fresh, { id: "main", tabIndex: -1 }));
    ages();
  });
}

function answer({ message, seq, text, reset }) {
  const at = document.getElementById(`answer-${message}`);
  if (!at || seq <= Number(at.dataset.seq ?? 0)) return;
  at.classList.add("text", "answer");
  keepingEnd(() => {
    if (reset) at.textContent = "";
    else at.append(text);
    at.dataset.seq = seq;
  });
}

function say(text, isStale) {
  if (status.textContent !== text) status.textContent = text;
  status.className = isStale ? "stale" : "";
}

function look() {
  ages();
  if (!known) {
    // A page about what went wrong has nothing to be kept up to date.
    say("", false);
    since.textContent = "";
    return;
  }
  if (paused) {
    say("Updates are paused.", true);
    return;
  }
  const silent = Date.now() - heard;
  const isOpen = source && source.readyState === EventSource.OPEN;
  const isStale = !isOpen || silent > SILENCE;
  // The beginning of a page is no news.
  if (isStale && silent < 1_500) return;
  say(isStale ? "Stale: not connected, reconnecting." : "Live.", isStale);
  const text = isStale ? `Last update ${words(silent)} ago.` : "";
  if (since.textContent !== text) since.textContent = text;
  if (isOpen && silent > SILENCE) reopen();
}

function close() {
  clearTimeout(again);
  again = null;
  if (source) source.close();
  source = null;
}

function reopen() {
  close();
  if (paused || document.hidden || !known) return;
  const at = encodeURIComponent(location.pathname + location.search);
  const opened = new EventSource(`/live?at=${at}&known=${encodeURIComponent(known)}`);
  source = opened;
  const hear = (event) => {
    heard = Date.now();
    if (event?.lastEventId) known = event.lastEventId;
    look();
  };
  opened.addEventListener("open", () => hear());
  opened.addEventListener("alive", () => hear());
  opened.addEventListener("screen", (event) => {
    const { html, title } = JSON.parse(event.data);
    document.title = `${title} · Mozart`;
    place(html);
    hear(event);
  });
  opened.addEventListener("answer", (event) => {
    answer(JSON.parse(event.data));
    hear(event);
  });
  opened.addEventListener("error", async () => {
    look();
    // The browser comes back by itself, unless it was refused.
    if (source !== opened || opened.readyState !== EventSource.CLOSED) return;
    try {
      const page = await fetch(location.href, { cache: "no-store" });
      if (page.redirected) location.reload();
    } catch {
      // Nobody answers: later.
    }
    if (source === opened) again = setTimeout(reopen, AGAIN);
  });
}

// Takes over a whole page that was answered.
async function take(response) {
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const to = new URL(response.url);
  const isHere = to.pathname === location.pathname;
  if (to.pathname.startsWith("/sign-in")) {
    location.assign(to);
    return;
  }
  if (to.pathname + to.search !== location.pathname + location.search && response.ok) {
    history.pushState(null, "", to.pathname + to.search);
    shown = location.pathname + location.search;
  }
  document.title = page.title;
  const fresh = page.getElementById("main");
  const told = page.querySelector(".done");
  document.querySelector(".done")?.remove();
  if (told) document.querySelector(".live").before(document.importNode(told, true));
  // The same screen keeps what is folded out.
  if (isHere && response.ok) morph(main, fresh);
  else main.replaceChildren(...[...fresh.childNodes].map((node) => document.importNode(node, true)));
  known = page.body.dataset.known;
  ages();
  const log = document.getElementById("log");
  if (log) log.scrollTop = log.scrollHeight;
  reopen();
}

// Says beside a form why nothing came of it; nothing: takes it back. What was typed stays.
function tell(form, text) {
  let said = form.querySelector("[role=alert]");
  if (!text) {
    said?.remove();
    return;
  }
  if (!said) {
    said = form.appendChild(document.createElement("p"));
    said.setAttribute("role", "alert");
    said.className = "trouble";
  }
  said.textContent = text;
}

async function refusal(response) {
  if (new URL(response.url).pathname.startsWith("/sign-in")) {
    return "Not sent: you are signed out. Copy what you typed, and reload the page.";
  }
  if (response.ok) return "";
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const words = page.getElementById("main")?.textContent ?? response.statusText;
  return words.replace(/\s+/g, " ").trim();
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (form.method !== "post" || !main.contains(form) || !known) return;
  event.preventDefault();
  if (form.dataset.sending) return;
  form.dataset.sending = "yes";
  const isChat = form.id === "send";
  const kept = main.contains(document.activeElement) ? document.activeElement.id : "";
  try {
    const body = new URLSearchParams(new FormData(form));
    const response = await fetch(form.action, { method: "POST", body });
    const refused = await refusal(response);
    tell(form, refused);
    if (refused) return;
    if (isChat) document.getElementById("text").value = "";
    await take(response);
    const next = document.getElementById(isChat ? "text" : kept);
    (next ?? main).focus();
  } catch {
    // The form has the id of the message: sent again, it is the same one.
    tell(form, "Not sent: nobody answers. Try again.");
  } finally {
    delete form.dataset.sending;
  }
});

document.addEventListener("keydown", (event) => {
  if (event.target.id === "text" && event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    event.target.form.requestSubmit();
  }
});

// Also a jump within the page is one in its history.
addEventListener("popstate", () => {
  if (location.pathname + location.search !== shown) location.reload();
});
document.addEventListener("visibilitychange", () => (document.hidden ? close() : reopen()));

if (status && known) {
  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Resume updates" : "Pause updates";
    if (paused) close();
    else reopen();
    look();
  });
  const log = document.getElementById("log");
  if (log) log.scrollTop = log.scrollHeight;
  setInterval(look, 1_000);
  reopen();
}
ages();
