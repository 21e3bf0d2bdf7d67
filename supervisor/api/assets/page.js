// Keeps a page up to date from one stream of events. The server renders every screen; this puts the new one in place of the old one, node by
// node, so that focus, what is typed and what is folded out stay. Text of models is set as text, or comes escaped: none of it is markup here.

const main = document.getElementById("main");
const status = document.getElementById("live");
const since = document.getElementById("since");
const pause = document.getElementById("pause");
const unread = document.getElementById("unread");
const told = document.getElementById("told");
// A stream that has been silent for longer is stale: the server says every five seconds that it is alive.
const SILENCE = 12_000;
const AGAIN = 2_000;
// As much of an answer is read out, in characters.
const READ_OUT = 1_000;

let known = document.body.dataset.known;
let source = null;
let heard = Date.now();
let again = null;
let paused = false;
let over = false;
const sending = new WeakSet();
let shown = location.pathname + location.search;
// Tabs of one browser have one session: what ends in one of them ends in all.
const tabs = "BroadcastChannel" in window ? new BroadcastChannel("mozart") : null;

function isSame(one, other) {
  return one.nodeType === other.nodeType && one.nodeName === other.nodeName;
}

function isPlain(node) {
  return node.childElementCount === 0;
}

// What must stay where it is: to be moved in the document takes the focus and the selection away.
function isHeld(node) {
  const selection = getSelection();
  return (
    node.contains(document.activeElement) ||
    (selection.type === "Range" && (node.contains(selection.anchorNode) || node.contains(selection.focusNode)))
  );
}

// For each node that is wanted, the one that is there already, if there is one: by its id, or the next of its kind that has none.
function matches(old, fresh) {
  const named = new Map();
  const unnamed = [];
  for (const child of old.childNodes) {
    if (child.id) named.set(child.id, child);
    else unnamed.push(child);
  }
  let at = 0;
  return [...fresh.childNodes].map((want) => {
    if (want.id) {
      const have = named.get(want.id);
      return have && isSame(have, want) ? have : null;
    }
    const found = unnamed.findIndex((one, index) => index >= at && isSame(one, want));
    if (found < 0) return null;
    at = found + 1;
    return unnamed[found];
  });
}

// Makes `old` what `fresh` is. What has the same id, or is the next of its kind, stays the same node; what need not be moved is not.
function morph(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  if (fresh.hasAttribute("data-keep")) return;
  for (const { name } of [...old.attributes]) {
    // Whether details are folded out is up to the reader, and what has the focus keeps it.
    const isReaders = name === "open" || (name === "tabindex" && old === document.activeElement);
    if (!fresh.hasAttribute(name) && !isReaders) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (old.nodeName === "TEXTAREA") return;
  // The same text, in whatever pieces it came: what is selected in it stays.
  if (isPlain(old) && isPlain(fresh) && old.textContent === fresh.textContent) return;
  const wanted = [...fresh.childNodes];
  const have = matches(old, fresh);
  const kept = new Set(have);
  for (const child of [...old.childNodes]) if (!kept.has(child)) child.remove();
  let at = old.firstChild;
  wanted.forEach((want, index) => {
    const node = have[index];
    if (!node) {
      old.insertBefore(document.importNode(want, true), at);
      return;
    }
    if (node !== at && isHeld(node)) {
      // The others move out of its way, and find their places later.
      while (at !== node) {
        const next = at.nextSibling;
        old.append(at);
        at = next;
      }
    }
    if (node === at) at = at.nextSibling;
    else old.insertBefore(node, at);
    morph(node, want);
  });
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
    if (time.textContent !== text && !isHeld(time)) time.textContent = text;
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

// The messages of a chat that are answered.
function answered() {
  const all = document.querySelectorAll("#log article:not([aria-busy])");
  return new Set([...all].filter((article) => article.querySelector(".answer, .trouble")).map((article) => article.id));
}

// Reads out the newest answer that is whole only now. While it was written, nothing was.
function readOut(before) {
  const id = [...answered()].filter((one) => !before.has(one)).pop();
  if (!id) return;
  const article = document.getElementById(id);
  const text = article.querySelector(".answer, .trouble").textContent;
  told.textContent = `${article.dataset.agent}: ${text.slice(0, READ_OUT)}`;
}

function place(html) {
  const fresh = new DOMParser().parseFromString(`<main>${html}</main>`, "text/html").querySelector("main");
  const before = answered();
  keepingEnd(() => {
    morph(main, Object.assign(fresh, { id: "main", tabIndex: -1 }));
    ages();
  });
  readOut(before);
}

// Says beside the screen what could not be read of it; nothing: takes it back. The screen stays as it was.
function miss(error) {
  const text = error ? [error.what, error.cause, error.try && `try: ${error.try}`].filter(Boolean).join("; ") : "";
  if (unread.textContent !== text) unread.textContent = text;
  unread.hidden = !text;
  main.classList.toggle("stale", Boolean(text));
}

function answer({ message, seq, text, reset }) {
  const at = document.getElementById(`answer-${message}`);
  if (!at || seq <= Number(at.dataset.seq ?? 0)) return;
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
  if (over) return;
  if (paused) {
    say("Updates are paused.", true);
    return;
  }
  const silent = Date.now() - heard;
  const isOpen = source && source.readyState === EventSource.OPEN;
  const isStale = !isOpen || silent > SILENCE;
  // The beginning of a page is no news.
  if (isStale && silent < 1_500) return;
  const isUnread = !unread.hidden;
  const state = isStale ? "Stale: not connected, reconnecting." : isUnread ? "Stale: this screen cannot be read now." : "Live.";
  say(state, isStale || isUnread);
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

// Nothing more comes, and what is there stays, also what was typed.
function signedOut(why) {
  if (over) return;
  over = true;
  close();
  say("Signed out. ", true);
  const link = document.createElement("a");
  link.href = `/sign-in?then=${encodeURIComponent(location.pathname + location.search)}`;
  link.textContent = "Sign in again";
  status.append(link);
  since.textContent = why ?? "";
  pause.hidden = true;
  main.classList.add("stale");
}

function stream() {
  return `/live?at=${encodeURIComponent(location.pathname + location.search)}&known=${encodeURIComponent(known)}`;
}

// Whether the session has ended: a stream that is refused does not say why.
async function lookIn() {
  const asked = new AbortController();
  const answer = await fetch(stream(), { cache: "no-store", signal: asked.signal });
  asked.abort();
  if (answer.status === 401) signedOut();
}

function reopen() {
  close();
  if (paused || over || document.hidden || !known) return;
  const opened = new EventSource(stream());
  source = opened;
  const hear = (event) => {
    if (source !== opened) return;
    heard = Date.now();
    if (event?.lastEventId) known = event.lastEventId;
    look();
  };
  opened.addEventListener("open", () => hear());
  opened.addEventListener("alive", (event) => {
    const state = event.data.startsWith("{") ? JSON.parse(event.data) : {};
    if ("unread" in state) miss(state.unread);
    hear();
  });
  opened.addEventListener("over", (event) => signedOut(JSON.parse(event.data).why));
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
      await lookIn();
    } catch {
      // Nobody answers: later.
    }
    if (source === opened && !over) again = setTimeout(reopen, AGAIN);
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
  miss(null);
  if (isHere && response.ok) morph(main, fresh);
  else main.replaceChildren(...[...fresh.childNodes].map((node) => document.importNode(node, true)));
  known = page.body.dataset.known;
  ages();
  const log = document.getElementById("log");
  if (log) log.scrollTop = log.scrollHeight;
  reopen();
  return isHere;
}

// The ids around an element, from the inside out.
function around(element) {
  const ids = [];
  for (let at = element; at && at !== main; at = at.parentElement) if (at.id) ids.push(at.id);
  return ids;
}

// Puts the focus back where it was, if it is lost: on what was around it, if that is gone.
function refocus(ids) {
  if (document.activeElement && document.activeElement !== document.body) return;
  const near = ids.map((id) => document.getElementById(id)).find((element) => element);
  const to = near ?? main;
  if (to.tabIndex < 0 && !to.hasAttribute("tabindex")) to.setAttribute("tabindex", "-1");
  to.focus({ preventScroll: true });
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
  if (form.matches(".who")) {
    // Once it has arrived there, the others look whether they are still signed in.
    sessionStorage.setItem("out", "yes");
    return;
  }
  if (form.method !== "post" || !main.contains(form) || !known) return;
  event.preventDefault();
  if (sending.has(form)) return;
  sending.add(form);
  const isChat = form.id === "send";
  const kept = around(main.contains(document.activeElement) ? document.activeElement : form);
  try {
    const body = new URLSearchParams(new FormData(form));
    const typed = isChat ? form.elements.text.value : "";
    const response = await fetch(form.action, { method: "POST", body });
    const refused = await refusal(response);
    tell(form, refused);
    if (refused) return;
    const text = document.getElementById("text");
    // What was typed since stays.
    if (isChat && text.value.startsWith(typed)) text.value = text.value.slice(typed.length);
    const isHere = await take(response);
    if (isHere) refocus(isChat ? ["text", ...kept] : kept);
    else main.focus();
  } catch {
    // The form has the id of the message: sent again, it is the same one.
    tell(form, "Not sent: nobody answers. Try again.");
  } finally {
    sending.delete(form);
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

if (sessionStorage.getItem("out")) {
  sessionStorage.removeItem("out");
  tabs?.postMessage("out");
}
tabs?.addEventListener("message", () => {
  if (known) lookIn().catch(() => {});
});

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
